"""What a photo went through: measured from its file and its pixels, without a reference."""

from degradations.measure.photo import Measured, measure, measure_pixels

__all__ = ["Measured", "measure", "measure_pixels"]
