"""Metrics of restored pictures, and the reports of an evaluation."""
