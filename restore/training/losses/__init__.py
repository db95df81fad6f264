"""Losses of the stages."""
