"""Contact sheets: many pictures on one PNG of bounded size."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from restore.errors import OutputError
from restore.files import replacing
from restore.images.picture import read, to_rgb8

GAP = 8  # px between the pictures
CELL = 512  # px, the longest side of a picture there
SIDE = 8192  # px, of the sheet


def write_grid(pictures: Sequence[Path], path: Path) -> None:
    """Write a contact sheet, replacing an older one at `path` in one step.

    Raises:
        OutputError: The file at `path` is not a contact sheet that this wrote.
    """
    if path.exists() and not is_grid(path):
        raise OutputError(f"{path}: was there before and is no grid of ours; move it away")
    with replacing(path) as temporary:
        write_sheet(pictures, temporary)


def write_sheet(pictures: Sequence[Path], path: Path) -> None:
    """Write PNG pictures, shrunk where needed and placed row by row, as one PNG."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell = min(CELL, SIDE // columns - GAP)
    thumbs = []
    for picture in pictures:
        thumb = Image.fromarray(to_rgb8(read(picture)))  # 16 bits, alpha, a profile: in sRGB
        thumb.thumbnail((cell, cell))
        thumbs.append(thumb)
    width = max(thumb.width for thumb in thumbs) + GAP
    height = max(thumb.height for thumb in thumbs) + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    for place, thumb in enumerate(thumbs):
        row, column = divmod(place, columns)
        sheet.paste(thumb, (column * width + GAP, row * height + GAP))
    about = PngInfo()
    about.add_text("restore", json.dumps({"grid": [picture.name for picture in pictures]}))
    sheet.save(path, "PNG", pnginfo=about)


def is_grid(path: Path) -> bool:
    """Whether a file is a contact sheet that write_grid wrote."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return '"grid"' in image.info.get("restore", "")
    except OSError:
        return False
