"""The examples for clusters and containers: all files are shared, and what is named exists."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from restore.batch.jobs import Shard

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
KEYS = [f"a/{number}.jpg" for number in range(200)]


@pytest.fixture
def said(tmp_path):
    """A `restore` that writes down its words; gives a function that runs a script with it."""
    shim = tmp_path / "bin" / "restore"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    shim.chmod(0o755)

    def run(*command, **variables):
        path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    return run


def shares(words):
    """The keys of the shard that the words name."""
    shard = Shard.parse(words[words.index("--shard") + 1])
    return [key for key in KEYS if shard.holds(key)]


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_the_tasks_of_a_slurm_array_share_all_files(said):
    found = []
    for task in range(1, 4):
        words = said(
            *("bash", DEPLOY / "slurm.sh", "my photos", "out", "-s", "2"),
            SLURM_ARRAY_TASK_ID=str(task),
            SLURM_ARRAY_TASK_COUNT="3",
        )
        assert words[:4] == ["upscale", "my photos", "-o", "out"] and words[-2:] == ["-s", "2"]
        found += shares(words)
    assert sorted(found) == sorted(KEYS)


@pytest.mark.skipif(sys.platform == "win32", reason="sh")
def test_the_pods_of_a_job_share_all_files(said):
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    found = []
    for index in range(job["spec"]["completions"]):
        words = said(*container["command"], *container["args"], JOB_COMPLETION_INDEX=str(index))
        found += shares(words)
    assert sorted(found) == sorted(KEYS)


def test_what_the_image_copies_and_installs_is_there():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    extras = set(re.findall(r"\.\[([\w,]+)\]", text)) | {"test,dev"}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ",".join(extras).split(","):
        assert re.search(rf"^{extra} = \[", pyproject, re.M), extra
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert re.search(rf"^FROM \S+ AS {build['target']}$", text, re.M)
