"""How well a trained scene model follows prompts: shares, confusion tables, a contact sheet.

python -m restore.training.toys.scene_score MODEL -o FOLDER
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment

from restore.checkpoints.load import load
from restore.diffusion import vae
from restore.diffusion.canvas import encode_nothing
from restore.diffusion.conditioning import Condition, as_velocity, conditioned, guided
from restore.diffusion.layouts import REPAINT
from restore.diffusion.noise import canvas_noise, generator, seed_of
from restore.diffusion.sampling import sample, start
from restore.diffusion.stack import Stack
from restore.options import Sampler
from restore.training import command
from restore.training.toys import scenes
from restore.training.toys.scene_detection import Detection, detect, overlap
from restore.training.toys.scenes import COLOURS, SHAPES, Scene, Thing

MOST = {"text": 1, "classes": 1, "boxes": 3}  # things in a scene
NONE = "none"


@torch.inference_mode()
def sample_scenes(
    stack: Stack,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float,
    steps: int = 20,
    sampler: Sampler = "ddim",
) -> np.ndarray:
    """What text2img makes of each prompt and seed, in one batch.

    Args:
        stack: The networks.
        prompts: One a picture.
        seeds: One a picture.
        guidance: Scale of classifier-free guidance.
        steps: Steps of sampling.
        sampler: The sampler.

    Returns:
        uint8 (B, SIZE, SIZE, 3).
    """
    conditioning = encode_nothing((scenes.SIZE, scenes.SIZE), stack)
    condition = Condition(conditioning, torch.full_like(conditioning[:, :1], REPAINT))
    wanted, unwanted = (
        conditioned(
            stack.unet, stack.layout, condition, torch.cat([*map(stack.reader.embed, said)])
        )
        for said in (prompts, [""] * len(prompts))
    )
    predict = as_velocity(guided(wanted, unwanted, guidance), stack.schedule)
    corners = [(0, 0)] * len(prompts)
    scheduler = stack.scheduler(sampler, steps)
    noise = torch.cat([canvas_noise(conditioning.shape, seed) for seed in seeds]).to(stack.device)
    rng = generator(stack.device, *seeds)
    x = sample(lambda x, t: predict(x, t, corners), start(scheduler, noise), scheduler, rng=rng)
    rgb = vae.decode(stack.vae, stack.from_residual(x, conditioning))
    return (rgb * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Answer:
    """A scene that was asked for, and what its picture shows.

    Attributes:
        scene: The scene.
        found: All things in the picture.
        pairs: Each thing of the scene with what was found for it; None if nothing was.
    """

    scene: Scene
    found: list[Detection]
    pairs: list[tuple[Thing, Detection | None]]

    @property
    def labelled(self) -> int:
        """Things in their colour and shape."""
        return sum(got is not None and got.label == thing.label for thing, got in self.pairs)

    @property
    def is_right(self) -> bool:
        return self.labelled == len(self.pairs)

    @property
    def placed(self) -> int:
        """Things in their colour whose box overlaps what was asked by more than half (IoU)."""
        return sum(
            got is not None
            and got.colour == thing.colour
            and overlap(got.corners, thing.corners) > 0.5
            for thing, got in self.pairs
        )


def answer(scene: Scene, pixels: np.ndarray) -> Answer:
    """Detect the things of a picture and pair them with those of the scene, so that most of them
    agree.

    Args:
        scene: What was asked for.
        pixels: uint8 (H, W, 3).
    """
    found = detect(pixels)
    cost = np.array(
        [
            [
                2 * (thing.colour != got.colour)
                + 2 * (thing.shape != got.shape)
                - overlap(thing.corners, got.corners)
                for got in found
            ]
            for thing in scene.things
        ]
    ).reshape(len(scene.things), len(found))
    chosen = dict(zip(*linear_sum_assignment(cost), strict=True))
    pairs = [
        (thing, found[chosen[n]] if n in chosen else None) for n, thing in enumerate(scene.things)
    ]
    return Answer(scene, found, pairs)


def scores(answers: Sequence[Answer]) -> dict[str, float]:
    """Shares of the scenes and of their things.

    Returns:
        "right", scenes in which every thing has its colour and shape; right_1, right_2 and right_3,
        the same by the number of things; "exact", scenes that are right and show nothing else;
        "things", things in their colour and shape; "placed", things in their colour at their box
        (IoU above 0.5).
    """

    def share(hits: Sequence[float], total: float) -> float:
        return round(sum(hits) / total, 4)

    things = sum(len(answer.pairs) for answer in answers)
    shares = {
        "right": share([answer.is_right for answer in answers], len(answers)),
        "exact": share(
            [answer.is_right and len(answer.found) == len(answer.pairs) for answer in answers],
            len(answers),
        ),
        "things": share([answer.labelled for answer in answers], things),
        "placed": share([answer.placed for answer in answers], things),
    }
    for count in (1, 2, 3):
        some = [answer for answer in answers if len(answer.pairs) == count]
        if some:
            shares[f"right_{count}"] = share([answer.is_right for answer in some], len(some))
    return shares


def confusion(answers: Sequence[Answer], what: str) -> str:
    """A table of what was asked for (rows) against what was found (columns).

    Args:
        answers: The answers.
        what: "colour" or "shape".
    """
    names = list(COLOURS) if what == "colour" else list(SHAPES)
    counts = Counter(
        (getattr(thing, what), getattr(got, what) if got else NONE)
        for one in answers
        for thing, got in one.pairs
    )
    lines = [f"{what:10}" + "".join(f"{name:>10}" for name in (*names, NONE))]
    lines += [
        f"{row:10}" + "".join(f"{counts[row, column]:10}" for column in (*names, NONE))
        for row in names
    ]
    return "\n".join(lines)


def sheet(answers: Sequence[Answer], pictures: np.ndarray, prompts: Sequence[str]) -> Image.Image:
    """Pictures at four times their size with their prompts, framed green where they are right."""
    side, text, columns = 4 * scenes.SIZE, 48, 8
    cell = side + 8
    rows = -(-len(answers) // columns)
    page = Image.new("RGB", (columns * cell, rows * (cell + text)), "white")
    pen = ImageDraw.Draw(page)
    for n, (one, pixels, prompt) in enumerate(zip(answers, pictures, prompts, strict=True)):
        x, y = n % columns * cell, n // columns * (cell + text)
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), "green" if one.is_right else "red")
        large = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        page.paste(large, (x + 4, y + 4))
        pen.multiline_text((x + 3, y + cell), fold(prompt, 22), "black", spacing=0)
    return page


def fold(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines[:4])


def main(
    model: Annotated[str, typer.Argument(help="The folder that training exported.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for scores and pictures.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Scenes that training never met.")] = 200,
    guidance: float = 4,
    steps: int = 20,
    sampler: Sampler = "ddim",
    seed: int = 1,
) -> None:
    """Draw held-out scenes from their prompts and score them."""
    stack = load(model)
    kind = stack.reader.kind
    wanted = [scenes.scene(seed, n, MOST[kind], held_out=True) for n in range(count)]
    prompts = [scene.prompt(kind) for scene in wanted]
    seeds = [seed_of(seed, n) for n in range(count)]
    pictures = np.concatenate(
        [
            sample_scenes(stack, prompts[n : n + 25], seeds[n : n + 25], guidance, steps, sampler)
            for n in range(0, count, 25)
        ]
    )
    answers = [answer(scene, pixels) for scene, pixels in zip(wanted, pictures, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    sheet(answers[:48], pictures[:48], prompts[:48]).save(out / "sheet.png")
    (out / "scores.json").write_text(json.dumps(scores(answers), indent=1) + "\n")
    tables = "\n\n".join(confusion(answers, what) for what in ("colour", "shape"))
    (out / "confusion.txt").write_text(tables + "\n")
    print(json.dumps(scores(answers)), tables, sep="\n")


if __name__ == "__main__":
    command.run(main)
