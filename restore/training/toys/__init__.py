"""Stages and data small enough to try training on a laptop, without a photo."""
