"""The commands of a page, and how a test runs them: as they stand, on less of everything."""

import re
import runpy
import shlex
import subprocess
import sys
import warnings
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from PIL import Image
from servers import free_port, started

from restore import cli

ROOT = Path(__file__).resolve().parents[1]
BASH = re.compile(r"^( *)```bash\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LESS = {"--pairs 12": "--pairs 2", "--crop 512": "--crop 64"}
TRAINING = (
    "steps=2 batch=2 warmup=1 stage.data.crop=32 log_every=1 show_every=2 save_every=2 log_with=[]"
)
SIDE = 128  # px, about
QUICK = {  # what is added to a command, to keep it small and in this process
    "degrade estimate": ["--workers", "1"],
    "degrade apply": ["--workers", "0"],
    "degrade preview": ["--crop", "64", "--rows", "1"],
    "train": shlex.split(TRAINING),
}
ELSEWHERE = ("pip install",)  # .ci/run does these: they install the clone, then run the tests


def commands(page: str) -> list[str]:
    """The lines of a page's blocks of bash; what a backslash ends goes on in the next."""
    blocks = [block.replace("\\\n", " ") for _, block in BASH.findall(page)]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def run(command: str) -> None:
    """A line of a page: ours in this process, all else by the shell."""
    for much, little in LESS.items():
        command = command.replace(much, little)
    command = re.sub(r"^python tools/(\w+)\.py", r"restore \1", command)
    words = shlex.split(command, comments=True)
    if command.startswith(ELSEWHERE):
        rest = command.partition(" && ")[2]
        assert rest, f"{command}: installs, and then does nothing that can be tried"
        if rest != "pytest":
            run(rest)
    elif words[:2] == ["restore", "serve"]:
        with TemporaryDirectory() as state:
            process = started(Path(state), free_port(), *words[2:])
            process.terminate()
            process.communicate(timeout=100)
    elif words[:2] == ["python", "-m"]:
        with (
            mock.patch.object(sys, "argv", words[2:]),
            warnings.catch_warnings(action="ignore"),  # it may be imported already
            pytest.raises(SystemExit) as ended,
        ):
            runpy.run_module(words[2], run_name="__main__")
        assert not ended.value.code, command
    elif words[0] == "restore":
        said = " ".join(words[1:])
        more = [word for name in QUICK if said.startswith(name) for word in QUICK[name]]
        with ExitStack() as there:
            if ">" in words:
                file = there.enter_context(Path(words.pop()).open("w", encoding="utf-8"))
                there.enter_context(redirect_stdout(file))
                assert words.pop() == ">", command
            assert cli.main([*words[1:], *more]) == 0, command
    else:
        done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)


def clone(folder: Path) -> Path:
    """A folder that looks like the clone, with smaller pictures; no command reaches the clone's."""
    for name in ("configs", "tools", "docs"):
        (folder / name).symlink_to(ROOT / name)
    for path in (ROOT / "tests").glob("s*/**/*.[jp][pn]g"):
        small = folder / path.relative_to(ROOT)
        small.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.reduce(max(1, round(max(image.size) / SIDE))).save(small)
    return folder
