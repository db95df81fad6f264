"""What tests/sweeper.py ends: runs that write in each of the ways in which the program writes."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing import current_process
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image

from restore import cli
from restore.batch import report
from restore.batch.jobs import plan
from restore.batch.journal import Journal
from restore.batch.runner import run_all
from restore.checkpoints import manifest
from restore.errors import RestoreError
from restore.file_search import find

Contents = dict[str, object]
PICTURES = ("a.png", "b.jpg", "bad.png", "sub/c.png")
NAMES = ("a.png", "b.png", "c.png", "sub/d.png")


@dataclass(frozen=True)
class Swept:
    """A run.

    Attributes:
        prepare: Writes the inputs into a folder.
        run: (inputs, output folder, whether with the older options) -> exit code.
        code: The exit code of an undisturbed run.
        results: The bytes of the results in an output folder: each is old, new or missing.
        keys: The inputs that the report has rows of; None: there is no report.
        complaints: One of these words is said if the run could not do all.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Path, Path, bool], int]
    code: int
    results: Callable[[Path], dict[str, bytes]]
    keys: tuple[str, ...] | None = None
    complaints: tuple[str, ...] = (
        "could not be listed",
        "nput/output error",
        "No space left",
        "no room left",
        "again",
    )

    def contents(self, out: Path) -> Contents:
        """All that an undisturbed run decides."""
        return {**self.results(out), "rows": self.rows(out)}

    def rows(self, out: Path) -> list[tuple[object, ...]] | None:
        """The rows of the report, without what differs from run to run."""
        if self.keys is None:
            return None
        fields = ("key", "status", "code", "options", "task", "output_sha256")
        lines = (out / "report.jsonl").read_text().splitlines()
        return sorted(tuple(map(json.loads(line).get, fields)) for line in lines)

    def check_rows(self, out: Path, code: int) -> None:
        """Each input has one row if the run came to its end; what is done is there."""
        if self.keys is None or code not in (0, 1):
            return
        rows = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
        unlisted = [row for row in rows if "could not be listed" in row.get("error", "")]
        told = sorted(row["key"] for row in rows if row not in unlisted)
        assert len(set(told)) == len(told), rows
        assert set(told) <= set(self.keys) and (unlisted or len(told) == len(self.keys)), rows
        for row in rows:
            if row["status"] == "done":
                data = (out / row["output"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == row["output_sha256"], row


def files(out: Path, *patterns: str, without: Iterable[str] = ()) -> dict[str, bytes]:
    found = (path for pattern in patterns for path in out.rglob(pattern))
    named = {path.relative_to(out).as_posix(): path for path in found if path.is_file()}
    ours = {name: path for name, path in named.items() if not path.name.startswith(".")}
    return {name: path.read_bytes() for name, path in ours.items() if name not in without}


# A run over files whose work is to copy


def prepare_bytes(inputs: Path) -> None:
    for number, name in enumerate(NAMES):
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs / name).write_bytes(bytes([number]) * 3000)


def copy(inputs: Path, out: Path, is_old: bool) -> int:
    def work(job, path):
        with path.open("wb") as file:
            file.write(job.source.read_bytes()[:: 1 if is_old else -1])
        return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}

    try:
        jobs = plan(find([inputs], out), out, lambda source: ".png")
        journal = Journal(out, "old" if is_old else "new", "w", task="upscale")
        publish = report.publisher(out)
        made = run_all(jobs, work, journal, progress=print, publish=publish)
    except RestoreError as error:
        print(error)
        return error.exit_code
    return 1 if made.failed else 0


# The commands


def command(*words: object) -> int:
    return cli.main(list(map(str, words)))


def prepare_pictures(inputs: Path) -> None:
    for number, name in enumerate(PICTURES):
        path = inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(rgb).save(path)
    (inputs / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def prepare_good(inputs: Path) -> None:
    prepare_pictures(inputs)
    (inputs / "bad.png").unlink()


def upscale(inputs: Path, out: Path, is_old: bool) -> int:
    return command("upscale", inputs, "-o", out, "-s", 2, "--fidelity", int(is_old))


def apply(inputs: Path, out: Path, is_old: bool) -> int:
    """Pairs are added to what is there, never replaced: the older ones are fewer."""
    words = ["-r", "phone", "--crop", 8, "--workers", 0]
    return command("degrade", "apply", inputs, *words, "-o", out, "--pairs", 2 if is_old else 5)


def evaluate(inputs: Path, out: Path, is_old: bool) -> int:
    more = ["--metrics", "psnr" if is_old else "psnr,ssim"]
    return command("evaluate", inputs / "made", "--reference", inputs / "hr", "-o", out, *more)


def prepare_evaluation(inputs: Path) -> None:
    for folder in ("made", "hr"):
        prepare_pictures(inputs / folder)


def prepare_reports(inputs: Path) -> None:
    for number in (1, 2, 3):
        prepare_pictures(inputs / f"{number}/in")
        upscale(inputs / f"{number}/in", inputs / f"{number}/out", False)


def merge(inputs: Path, out: Path, is_old: bool) -> int:
    outs = [inputs / f"{number}/out" for number in ((1, 2) if is_old else (1, 2, 3))]
    return command(
        "report", "merge", *outs, *([out] if (out / "report.jsonl").exists() else []), "-o", out
    )


def enlarged(picture, options, *_, **__):
    """Stands in for the model: pixels four times, or of the negative for --fidelity 1."""
    pixels = picture.pixels.repeat(2, 0).repeat(2, 1)
    return replace(picture, pixels=255 - pixels if options.fidelity else pixels)


def stand_in(in_process: bool = True) -> None:
    """No model: what remains of a command is what it does with files.

    Args:
        in_process: Codecs run in this process, so that their calls to the file system are met.
    """
    manifest.find_model = lambda name, **_: (Path(name), "digest")
    for name, held in (
        ("restore.tasks.run", {"restore": enlarged, "needed": lambda stack, *_: stack}),
        (
            "restore.checkpoints.devices",
            {"load": lambda *_, **__: SimpleNamespace(parts=[], scale=2)},
        ),
    ):
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(held)
    current_process()._config["daemon"] = in_process


SWEPT = {
    "copies": Swept(prepare_bytes, copy, 0, lambda out: files(out, "*.png"), NAMES),
    "upscale": Swept(
        prepare_pictures, upscale, 1, lambda out: files(out, "*.png", "*.jpg"), PICTURES
    ),
    "apply": Swept(
        prepare_good, apply, 0, lambda out: files(out, "*.png", "traces/*.json", "*.yaml")
    ),
    "evaluate": Swept(
        prepare_evaluation, evaluate, 1, lambda out: files(out, "scores.*", "report.html")
    ),
    "merge": Swept(prepare_reports, merge, 1, lambda out: files(out, "report.jsonl")),
}
