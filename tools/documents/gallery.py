"""Pictures for the documents, made from the samples by nano and by the code."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import degradations
import restore

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "samples"
SCRATCHED = ROOT / "tests" / "scratched"
KINDS = ("JPEG", "PNG")  # of our own pictures
CELL = (320, 240)  # (width, height) of a picture in a sheet
GAP, HEAD = 6, 22
PLACES = {  # where to crop each sample at 100 %: (left, top) in px of the input
    "phone_noisy.jpg": (150, 70),
    "web_1998.jpg": (40, 25),
    "portrait.jpg": (24, 20),
    "landscape.jpg": (60, 30),
}
Picture = Image.Image


def write(out: Path) -> None:
    """Draw and save all pictures; on a CPU the same code and weights give the same bytes."""
    nano = restore.load("nano", device="cpu")
    makers: dict[str, Callable[[], Picture]] = {
        "gallery_enlarged.jpg": lambda: draw_enlarged(nano),
        "gallery_repaired.jpg": lambda: draw_repaired(nano),
        "gallery_filled.jpg": lambda: draw_filled(nano),
        "gallery_damage.jpg": lambda: draw_damaged(nano),
        "concepts_trust.png": draw_trust,
        "concepts_windows.png": draw_windows,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, make in makers.items():
        make().save(out / name, quality=82, optimize=True)


def draw_enlarged(nano: "restore.Restorer") -> Picture:
    """Draw each sample enlarged by four: bicubic, nano, nano with fidelity 1."""
    rows = []
    for name, (left, top) in PLACES.items():
        small = Image.open(SAMPLES / name, formats=KINDS).convert("RGB")
        results = [
            small.resize((4 * small.width, 4 * small.height), Image.Resampling.BICUBIC),
            nano.upscale(small, scale=4, seed=0),
            nano.upscale(small, scale=4, seed=0, fidelity=1.0),
        ]
        box = (4 * left, 4 * top, 4 * left + CELL[0], 4 * top + CELL[1])
        rows.append([result.crop(box) for result in results])
    return draw_sheet(("bicubic", "nano", "nano, --fidelity 1"), rows)


def draw_repaired(nano: "restore.Restorer") -> Picture:
    """Draw a scratched photo, its mask, and the result of one pass."""
    pictures = [one.convert("RGB").resize(CELL) for one in repair(nano)]
    return draw_sheet(("scratched", "mask", "repaired and enlarged"), [pictures])


def repair(nano: "restore.Restorer") -> tuple[Picture, Picture, Picture]:
    """Return a scratched photo, its mask, and the photo repaired and twice as large."""
    photo = Image.open(SCRATCHED / "osprey.jpg", formats=KINDS).convert("RGB")
    mask = Image.open(next((SCRATCHED / "masks").glob("osprey.*")), formats=KINDS).convert("L")
    return photo, mask, nano.upscale(photo, scale=2, damage=mask, seed=0)


def draw_filled(nano: "restore.Restorer") -> Picture:
    """Draw a photo whose watermark is removed."""
    photo = Image.open(SAMPLES / "landscape.jpg", formats=KINDS).convert("RGB")
    mask = Image.new("L", photo.size)
    marked = photo.copy()
    for draw, colour in ((ImageDraw.Draw(mask), 255), (ImageDraw.Draw(marked), "yellow")):
        draw.text((90, 14), "PROOF", fill=colour, font=ImageFont.load_default(20))
    made = nano.inpaint(marked, mask, seed=0, grow=3)
    size = (CELL[0], CELL[0] * photo.height // photo.width)
    pictures = [one.convert("RGB").resize(size) for one in (marked, mask, made)]
    return draw_sheet(("before", "mask", "filled"), [pictures])


def draw_damaged(nano: "restore.Restorer") -> Picture:
    """Draw a photo damaged by several recipes, without the scratches that its file has."""
    photo = np.asarray(repair(nano)[2].crop((120, 40, 520, 340)).resize(CELL))
    names = ("realesrgan", "phone", "old_photo")
    damaged = [
        degradations.recipes.named(name).degrade(photo, scale=1, seed=3, key="gallery").lr
        for name in names
    ]
    pictures = [Image.fromarray(one).resize(CELL) for one in damaged]
    return draw_sheet(names, [pictures])


def draw_trust() -> Picture:
    """Draw the model's inputs for each task: the picture, and the trust map below it."""
    photo = (
        Image.open(SAMPLES / "portrait.jpg", formats=KINDS).convert("RGB").crop((0, 20, 128, 116))
    )
    grey, width, height = (128, 128, 128), *photo.size
    hole = Image.new("L", photo.size)
    ImageDraw.Draw(hole).ellipse((40, 30, 80, 70), fill=255)
    scratch = Image.new("L", photo.size)
    ImageDraw.Draw(scratch).line((10, 90, 110, 5), fill=255, width=4)

    def draw_pair(mask: Picture, rest: int) -> tuple[Picture, Picture]:
        picture = Image.composite(Image.new("RGB", photo.size, grey), photo, mask)
        return picture, Image.composite(Image.new("L", photo.size, 255), grey_map(rest), mask)

    def grey_map(value: int) -> Picture:
        return Image.new("L", photo.size, value)

    everything, nothing = grey_map(255), grey_map(0)
    tasks = {
        "text to image": draw_pair(everything, 255),
        "upscale: 0.5": draw_pair(nothing, 128),
        "inpaint: 0 and 1": draw_pair(hole, 0),
        "repair and enlarge": draw_pair(scratch, 128),
    }
    size = (2 * width, 2 * height)
    rows = [[pair[row].convert("RGB").resize(size) for pair in tasks.values()] for row in (0, 1)]
    return draw_sheet(tuple(tasks), rows)


def draw_windows() -> Picture:
    """Plot the weights of overlapping windows along one side; they add up to one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from restore.diffusion.tiling import Windows

    grid = Windows(64, 48)
    figure, axes = pyplot.subplots(figsize=(8, 2.2), dpi=100)
    length = grid.canvas(208)
    weight = grid.weight(length).numpy()
    for start in grid.starts(length):
        axes.fill_between(range(start, start + grid.size), weight, alpha=0.5)
    axes.set(xlabel="position in latents", ylabel="weight", xlim=(0, length), ylim=(0, 1.05))
    figure.tight_layout()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    pyplot.close(figure)
    return Image.fromarray(pixels)


def draw_sheet(heads: Sequence[str], rows: Sequence[Sequence[Picture]]) -> Picture:
    """Draw pictures of one size in rows, with a title above each column."""
    width, height = rows[0][0].size
    size = (len(heads) * (width + GAP) - GAP, HEAD + len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, head in enumerate(heads):
        draw.text((column * (width + GAP) + 2, 2), head, fill="black", font=font)
        for row, pictures in enumerate(rows):
            place = (column * (width + GAP), HEAD + row * (height + GAP))
            sheet.paste(pictures[column], place)
    return sheet
