"""Notebooks on the Python interface, which are run before they are saved."""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "docs" / "notebooks"
PATIENCE_S = 300
START = "Run this notebook in a clone, after `pip install .`. It needs no network."
GO = """import os
from pathlib import Path

# Jupyter starts in the folder of the notebook, the pictures are in that of the clone
here = Path.cwd()
os.chdir(next(at for at in (here, *here.parents) if (at / "tests/samples").is_dir()))"""
SHOW = '''def show(*pictures, height=240):
    """Pictures side by side."""
    made = [p.resize((max(1, p.width * height // p.height), height)) for p in pictures]
    row = Image.new("RGB", (sum(p.width + 6 for p in made) - 6, height), "white")
    left = 0
    for p in made:
        row.paste(p.convert("RGB"), (left, 0))
        left += p.width + 6
    data = io.BytesIO()
    row.save(data, "JPEG", quality=80)
    display(Jpeg(data.getvalue()))'''
IMPORTS = """import io

import numpy as np
from IPython.display import Image as Jpeg, display
from PIL import Image

"""


class Markdown(str):
    """The text of a Markdown cell; all other cells are code."""


CELLS: dict[str, tuple[str, ...]] = {
    "restore_photos": (
        Markdown(f"# Restore photos\n\n{START}"),
        GO,
        IMPORTS + "import restore\n\n\n" + SHOW,
        Markdown(
            "## Enlarge\n\nThe model is loaded once. Pillow, numpy and torch pictures are taken, "
            "and the same kind comes back."
        ),
        'nano = restore.load("nano", device="cpu")\n'
        'photo = Image.open("tests/samples/web_1998.jpg")\n'
        "large = nano.upscale(photo, scale=4, seed=0)\n"
        "print(photo.size, large.size)\n"
        "show(photo, large)",
        Markdown("`fidelity=0` is sharp, `fidelity=1` is closest to the truth on average."),
        "faithful = nano.upscale(photo, scale=4, seed=0, fidelity=1.0)\nshow(large, faithful)",
        Markdown(
            "## Repair a scratched photo\n\nWhite parts of the mask are filled while the photo is "
            "enlarged."
        ),
        'old = Image.open("tests/scratched/osprey.jpg")\n'
        'mask = Image.open("tests/scratched/masks/osprey.png").convert("L")\n'
        "repaired = nano.upscale(old, scale=2, damage=mask, seed=0)\n"
        "show(old, mask, repaired)",
        Markdown("## Same seed, same picture"),
        "again = nano.upscale(photo, scale=4, seed=0)\n"
        "assert (np.asarray(again) == np.asarray(large)).all()",
    ),
    "damage_pictures": (
        Markdown(
            "# Damage pictures on purpose\n\nTo train a network that restores, you need pairs of "
            f"good and bad pictures. {START}"
        ),
        GO,
        IMPORTS + "import degradations\n\n\n" + SHOW,
        Markdown(
            "A recipe lists kinds of damage with ranges. Each call draws from the ranges; the key "
            "and the seed decide what is drawn."
        ),
        'photo = np.asarray(Image.open("tests/scratched/osprey.jpg"))\n'
        'recipe = degradations.recipes.named("realesrgan")\n'
        'pairs = [recipe.degrade(photo, scale=2, seed=0, key=f"photo_{n}") for n in range(3)]\n'
        "show(*(Image.fromarray(pair.lr) for pair in pairs))",
        Markdown("The trace says what was drawn. It makes the same picture again, bit for bit."),
        'for step in pairs[0].trace.model_dump()["steps"][:3]:\n    print(step)\n'
        "again = degradations.replay(pairs[0].trace, photo)\n"
        "assert (again == pairs[0].lr).all()",
        Markdown("`at` makes any recipe milder: here severities of 0.2, 0.5 and 1."),
        "mild = [recipe.at(s).degrade(photo, scale=2, seed=0, key='photo_0').lr "
        "for s in (0.2, 0.5, 1)]\n"
        "show(*map(Image.fromarray, mild))",
    ),
    "measure_results": (
        Markdown(
            "# Measure results\n\nDamage pictures, restore them, and compare with the originals. "
            f"{START}"
        ),
        GO,
        "import tempfile\n\nfrom restore import cli\n\nwork = Path(tempfile.mkdtemp())",
        Markdown("The commands are the same as in a shell. `main` returns the exit code."),
        'cli.main(["degrade", "apply", "tests/samples", "-r", "phone", "-o", f"{work}/test",\n'
        '          "--pairs", "4", "--crop", "96", "--scale", "2", "--workers", "0"])',
        'for fidelity in ("0", "1"):\n'
        '    cli.main(["upscale", f"{work}/test/lr", "-s", "2", "--fidelity", fidelity,\n'
        '              "-o", f"{work}/fidelity_{fidelity}", "-q"])',
        Markdown("`evaluate` compares two folders picture by picture, with intervals."),
        'cli.main(["evaluate", f"{work}/fidelity_0", f"{work}/fidelity_1",\n'
        '          "--reference", f"{work}/test/hr"])',
    ),
}


def write() -> None:
    """Make, run and save all notebooks."""
    PLACE.mkdir(exist_ok=True)
    for name in CELLS:
        book = make_notebook(name)
        run(book)
        for cell in book.cells:  # drop when and where it ran
            cell.metadata.clear()
            if cell.cell_type == "code":  # and warnings of libraries
                cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        nbformat.write(book, PLACE / f"{name}.ipynb")


def make_notebook(name: str) -> nbformat.NotebookNode:
    """Make a notebook from its cells in CELLS."""
    cells = [
        (new_markdown_cell if isinstance(text, Markdown) else new_code_cell)(text, id=f"cell-{nth}")
        for nth, text in enumerate(CELLS[name])
    ]
    book = new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    return book


def run(book: nbformat.NotebookNode) -> None:
    """Run a notebook in its folder, as Jupyter does, offline.

    Raises:
        CellExecutionError: A cell raised an error.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    place = {"metadata": {"path": str(PLACE)}}
    NotebookClient(book, timeout=PATIENCE_S, kernel_name="python3", resources=place).execute()
