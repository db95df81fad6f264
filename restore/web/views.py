"""JPEG copies for the browser, which cannot show TIFFs or 100 megapixels."""

from pathlib import Path

from PIL import Image

from restore.errors import ImageError
from restore.files import replacing
from restore.images import sandbox
from restore.images.picture import to_rgb8

SIDE = 4096  # px: to it a picture is shown pixel for pixel
PIXELS = 2**26  # of a larger one there is no copy: decoding it again would take too long
QUALITY = 93


def write_view(source: Path, path: Path) -> list[str]:
    """Write a JPEG of at most SIDE pixels a side.

    Returns:
        The stem of `path` in a list; an empty list if there can be no copy.
    """
    try:
        height, width = sandbox.probe(source).size
        if height * width > PIXELS:
            return []
        pixels = to_rgb8(sandbox.read(source))
    except ImageError:  # the result is there all the same
        return []
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    path.parent.mkdir(exist_ok=True)
    with replacing(path, is_lasting=False) as temporary:
        image.save(temporary, "JPEG", quality=QUALITY, subsampling=0)
    return [path.stem]
