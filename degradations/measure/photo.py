"""Measures what one photo went through, from its file and its pixels."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from degradations import samples
from degradations.errors import RecipeError
from degradations.measure import blur, jpegfile, noise, recompression, resampling, tone

# What is opened at all: other decoders of Pillow start interpreters or read other files.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM")

MOST = 2**27  # pixels of a photo
_SIDE = 1024  # pixels; the middle of a larger photo stands for it
_SMALLEST = 64
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Measured:
    """What was measured on a photo; None wherever a quantity could not be measured."""

    path: str
    width: int
    height: int
    format: str
    quality: int | None
    """Quality of a JPEG file, on libjpeg's scale."""
    tables: str | None
    """"standard" for libjpeg's tables; "own" for others, where quality is the nearest one."""
    chroma: str | None
    """Chroma subsampling of a JPEG file."""
    earlier_quality: int | None
    """Quality of an earlier JPEG: of pixels that came from one, or of a file saved again."""
    noise: float | None
    """Standard deviation of the noise in the luma, levels of 255."""
    noise_read: float | None
    """The constant part of the noise's variance."""
    noise_shot: float | None
    """The part of it that grows with the luma: variance = read + shot x luma."""
    noise_curve: tuple[tuple[float, float], ...]
    """(luma, sigma) of each bin of luma."""
    colour_noise: bool | None
    """Whether the noises of red, green and blue differ."""
    grey: bool
    """Whether red, green and blue are equal in every pixel."""
    blur: float | None
    """Sigma of a Gaussian, pixels."""
    enlarged: float | None
    """Factor by which the picture was enlarged."""
    cast: tuple[float, float, float] | None
    """Gains of red, green and blue, with the mean 1."""
    black: float
    """The darkest luma, [0, 1]."""
    white: float
    """The lightest luma, [0, 1]."""

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)

    @property
    def last_quality(self) -> int | None:
        """Of the JPEG that the pixels come from, be it this file or one before."""
        return self.earlier_quality if self.quality is None else self.quality


def measure(path: str | Path) -> Measured:
    """Measure a photo.

    Raises:
        RecipeError: If the file is no picture, is broken, or is too small to measure.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            found = jpegfile.read(image)
            form, size = image.format or "", image.size
            if size[0] * size[1] > MOST:
                message = f"{size[0]}x{size[1]} px; the limit is {MOST // 10**6} million"
                raise RecipeError(f"{path}: {message}; make it smaller first")
            if not _is_rgb(image):
                # JPEG's own luma: through RGB the quantised values are not whole any more
                image.draft("YCbCr", image.size)
            box, luma = _middle(size), None
            if image.mode == "YCbCr":
                luma = np.asarray(image.crop(box), np.float32)[..., 0]
            rgb = part(image, box)
    except (OSError, ValueError, SyntaxError, KeyError, IndexError) as error:
        raise RecipeError(f"{path}: cannot be read as a picture: {error}") from error
    except Image.DecompressionBombError as error:
        raise RecipeError(f"{path}: {error}; make it smaller first") from error
    if min(rgb.shape[:2]) < _SMALLEST:
        raise RecipeError(
            f"{path}: {size[0]}x{size[1]} px is too small to tell anything from; give photos of "
            f"at least {_SMALLEST} px a side, better 512"
        )
    return _assemble((str(path), *size, form), found, rgb, luma)


def measure_pixels(rgb: np.ndarray, name: str = "") -> Measured:
    """As `measure`, for pixels without a file.

    Args:
        rgb: uint8 (H, W, 3), at least 64 pixels a side.
        name: What stands for the path in the result.
    """
    left, top, right, bottom = _middle(rgb.shape[1::-1])
    middle = rgb[top:bottom, left:right]
    return _assemble((name, rgb.shape[1], rgb.shape[0], ""), None, middle, None)


def part(image: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 (h, w, 3) of a part of an open file; 16 bits are rounded, alpha is left out.

    Args:
        image: What Pillow opened, by a path.
        box: (left, top, right, bottom).

    Raises:
        RecipeError: If it is a camera's raw file, or cannot be read.
    """
    layout = [str(piece[3]) for piece in getattr(image, "tile", [])]
    if image.format != "TIFF" and not any(";16" in mode for mode in layout):
        return np.asarray(image.crop(box).convert("RGB"))
    # Pillow cuts most pictures of 16 bits to 8, and takes planes for pixels
    whole = samples.read(Path(image.filename))  # pyright: ignore[reportAttributeAccessIssue]
    if whole.shape[1::-1] != image.size:
        whole = np.rot90(whole)  # which was set upright
    left, top, right, bottom = box
    return whole[top:bottom, left:right]


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part measured, whole blocks from the corner."""
    width, height = size
    left, top = max(0, (width - _SIDE) // 16 * 8), max(0, (height - _SIDE) // 16 * 8)
    return left, top, min(width, left + _SIDE), min(height, top + _SIDE)


def _is_rgb(image: Image.Image) -> bool:
    """A JPEG that holds red, green and blue as they are: rare, and it has no luma to ask for."""
    names = [layer[0] for layer in getattr(image, "layer", [])]
    return image.info.get("adobe_transform") == 0 or names == [*b"RGB"]


def _assemble(
    name: tuple[str, int, int, str],
    file: jpegfile.JpegFile | None,
    rgb: np.ndarray,
    luma: np.ndarray | None,
) -> Measured:
    luma = rgb @ _LUMA if luma is None else luma
    before = recompression.earlier(luma, file and file.luma)
    steps, corner = (file.luma, (0, 0)) if file else (None, (0, 0))
    if before and not file:
        steps, corner = before.luma, (before.top, before.left)
    noisy = noise.measure(rgb, luma, steps, corner)
    soft = blur.measure(luma, noisy.sigma if noisy else 0.0)
    colours = tone.measure(rgb)
    return Measured(
        path=name[0],
        width=name[1],
        height=name[2],
        format=name[3],
        quality=file.quality if file else None,
        tables=file.tables if file else None,
        chroma=file.chroma if file else None,
        earlier_quality=before.quality if before else None,
        noise=noisy.sigma if noisy else None,
        noise_read=noisy.read if noisy else None,
        noise_shot=noisy.shot if noisy else None,
        noise_curve=noisy.curve if noisy else (),
        colour_noise=noisy.colour if noisy else None,
        grey=noise.is_grey(rgb),
        blur=soft,
        enlarged=resampling.enlargement(luma, soft),
        cast=colours.cast,
        black=colours.black,
        white=colours.white,
    )
