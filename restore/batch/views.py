"""What the page shows of a picture: a thumbnail, and the place that changed most at 100 %."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch.jobs import short_digest
from restore.batch.journal import HIDDEN
from restore.errors import OutputError
from restore.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

    from restore.images.picture import Picture

    Shown = tuple[np.ndarray, np.ndarray | None]  # pixels (H, W, 3), alpha (H, W)

SIDE = 160  # px, of a thumbnail
CROP = (240, 320)  # px, (height, width) of what is shown at 100 %
SAMPLES = 4 * SIDE  # a side at most, to make thumbnails and to find the place that changed most
MARGIN = 4  # px of the input beyond a crop, for its enlargement
BAND = 256  # rows of a large picture that are in memory at a time
Box = tuple[int, int, int, int]
"""(top, left, height, width) in px of the result"""


def keep(
    out: Path,
    key: str,
    *layers: "Shown",
    is_aligned: bool = False,
    like: "Picture | None" = None,
) -> Box | None:
    """Save small JPEGs for the page.

    Args:
        out: The folder of the report.
        key: Of the picture.
        *layers: The pictures to show; the first is the input, the last is the result.
        is_aligned: Input and result have the same content, so that they can be compared.
        like: Its colour profile is that of them all; None: they are sRGB.

    Returns:
        The place that is shown at 100 %; None if they are not compared.
    """
    samples = [tuple(None if layer is None else _sampled(layer) for layer in one) for one in layers]
    convert = _conversion(like)
    panels = [convert(_panel(*one, of[0].shape)) for one, of in zip(samples, layers, strict=True)]
    source, result = layers[0], layers[-1]
    size = result[0].shape[:2]
    box = None
    if is_aligned:
        box = most_changed(samples[0], result)
        _mark(panels[-1], box, size)
        pair = [convert(_part(*one, box, size)) for one in (source, result)]
        # the halves' colours, as coarse as in other JPEGs, would be taken for the result's
        crops = _strip(pair, gap=0, quality=85, subsampling=0)
        _write(out, path_of(out, key, "crops"), crops)
    _write(out, path_of(out, key), _strip(panels, quality=75))
    return box


def path_of(out: Path, key: str, what: str = "thumbs") -> Path:
    """The file of a picture's small JPEG; `what` is thumbs or crops."""
    name = short_digest(key)
    return out / HIDDEN / what / name[:2] / f"{name}.jpg"


def most_changed(before: "Shown", after: "Shown") -> Box:
    """The place where a result differs most from its enlarged input.

    Both are laid on white, as they are shown: what transparency hides may change unseen.

    Args:
        before: The input of 8 bits, or an even sample of it.
        after: The result.

    Returns:
        A box as large as CROP, or all of a smaller result.
    """
    import cv2
    import numpy as np

    size = after[0].shape[:2]
    height, width = (min(most, side) for most, side in zip(CROP, size, strict=True))
    rows, columns = before[0].shape[:2]
    samples = (None if one is None else _sampled(one, rows, columns) for one in after)
    seen = np.asarray(_on_white(*samples), np.float32)
    changed = np.abs(seen - np.asarray(_on_white(*before))).mean(2)
    tall = max(1, round(height * rows / size[0]))
    wide = max(1, round(width * columns / size[1]))
    # the mean of each window of that size, at its first sample
    means = cv2.boxFilter(changed, -1, (wide, tall), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    means = means[: rows - tall + 1, : columns - wide + 1]
    row, column = np.unravel_index(int(means.argmax()), means.shape)
    if means[row, column] - means.min() < 1e-3:  # nothing stands out
        row, column = means.shape[0] // 2, means.shape[1] // 2
    top = min(size[0] - height, round(int(row) * size[0] / rows))
    left = min(size[1] - width, round(int(column) * size[1] / columns))
    return top, left, height, width


def _sampled(layer: "np.ndarray", rows: int = SAMPLES, columns: int = SAMPLES) -> "np.ndarray":
    """An even sample of a layer, 8 bits, at most rows x columns.

    It reads band by band, so that a layer on disk is never in memory as a whole.
    """
    import numpy as np

    from restore.images import memmap

    height, width = layer.shape[:2]
    nth_row, nth_column = (
        ((np.arange(min(count, side)) + 0.5) * side / min(count, side)).astype(int)
        for count, side in ((rows, height), (columns, width))
    )
    bands = []
    for first in range(0, height, BAND):
        here = nth_row[(nth_row >= first) & (nth_row < first + BAND)] - first
        if len(here):
            bands.append(_eight(layer[first : first + BAND][here][:, nth_column]))
            memmap.release_pages()
    return np.concatenate(bands)


def _part(
    pixels: "np.ndarray", alpha: "np.ndarray | None", box: Box, size: tuple[int, ...]
) -> "Image.Image":
    """The part `box` of a picture that is enlarged to `size` by bicubic interpolation.

    It is laid on white first, because colours that transparency hides would come out as a fringe.
    """
    import cv2
    import numpy as np
    from PIL import Image

    def cut(rows: slice, columns: slice) -> "Image.Image":
        layers = (None if one is None else _eight(one[rows, columns]) for one in (pixels, alpha))
        return _on_white(*layers)

    top, left, height, width = box
    if pixels.shape[:2] == size:
        return cut(slice(top, top + height), slice(left, left + width))
    step_y, step_x = (side / length for side, length in zip(pixels.shape[:2], size, strict=True))
    first_y, first_x = max(0, int(top * step_y) - MARGIN), max(0, int(left * step_x) - MARGIN)
    last_y, last_x = int((top + height) * step_y) + MARGIN, int((left + width) * step_x) + MARGIN
    part = np.asarray(cut(slice(first_y, last_y + 1), slice(first_x, last_x + 1)))
    from_y = (top + 0.5) * step_y - 0.5 - first_y
    from_x = (left + 0.5) * step_x - 0.5 - first_x
    matrix = np.array([[step_x, 0, from_x], [0, step_y, from_y]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    enlarged = cv2.warpAffine(part, matrix, (width, height), flags=flags, borderMode=border)
    return Image.fromarray(enlarged)


def _panel(pixels: "np.ndarray", alpha: "np.ndarray | None", of: tuple[int, ...]) -> "Image.Image":
    """One picture, at most SIDE on a side, on white where it is transparent.

    Args:
        of: The shape of the picture that `pixels` are a sample of.
    """
    from PIL import Image

    height, width = of[:2]
    scale = min(SIDE / width, SIDE / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return _on_white(pixels, alpha).resize(size, how)


def _conversion(like: "Picture | None") -> "Callable[[Image.Image], Image.Image]":
    """Return what converts images with the profile of `like` to sRGB, as JPEGs here carry none."""
    import numpy as np
    from PIL import Image

    from restore.images import metadata

    icc = None if like is None else like.icc
    if like is None or icc is None or metadata.is_srgb(icc, like.grey):
        return lambda image: image
    if not like.grey:
        return lambda image: metadata.to_srgb(image, icc, [])
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    table = np.asarray(metadata.to_srgb(levels, icc, []))[0, :, 1]
    return lambda image: image.point(table.tolist() * 3)  # what is marked in it has colours


def _on_white(pixels: "np.ndarray", alpha: "np.ndarray | None") -> "Image.Image":
    from PIL import Image

    image = Image.fromarray(pixels)
    if alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(alpha))


def _eight(layer: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return (layer >> 8).astype(np.uint8) if layer.dtype == np.uint16 else layer


def _mark(panel: "Image.Image", box: Box, size: tuple[int, ...]) -> None:
    """Draw the box into a thumbnail, unless it is the whole picture."""
    from PIL import ImageDraw

    top, left, height, width = box
    if (height, width) == size[:2]:
        return
    scale_y, scale_x = panel.height / size[0], panel.width / size[1]
    corners = left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y
    x0, y0, x1, y1 = map(round, corners)
    x1, y1 = min(max(x1, x0 + 3), panel.width) - 1, min(max(y1, y0 + 3), panel.height) - 1
    draw = ImageDraw.Draw(panel)
    draw.rectangle((x0, y0, x1, y1), outline="black")
    if x1 - x0 > 3 and y1 - y0 > 3:
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline="yellow")


def _strip(panels: "list[Image.Image]", gap: int = 8, **options: int) -> bytes:
    """Pictures side by side, as a JPEG with Pillow's options."""
    from PIL import Image

    height = max(panel.height for panel in panels)
    width = sum(panel.width + gap for panel in panels) - gap
    strip = Image.new("RGB", (width, height), "white")
    left = 0
    for panel in panels:
        strip.paste(panel, (left, 0))
        left += panel.width + gap
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _write(out: Path, path: Path, data: bytes) -> None:
    if not path.parent.resolve().is_relative_to((out / HIDDEN).resolve()):
        raise OutputError(f"{path.parent}: is a link that leads out of {out}; remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, is_lasting=False) as temporary:  # never through a link, soft or hard
        temporary.write_bytes(data)
