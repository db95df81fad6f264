"""What is installed is bounded, known to work, and tried every week."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# basicsr is a reference of one release, and dev tools change no result
TEXTS = [texts for name, texts in EXTRAS.items() if name not in ("basicsr", "dev")]
WANTED = map(Requirement, chain(PROJECT["dependencies"], *TEXTS))
ASKED = {canonicalize_name(wanted.name): wanted for wanted in WANTED}


LEFT_OPEN = {"torch", "torchvision", "setuptools", "certifi", "tzdata"}


def known() -> dict[str, str]:
    """Package -> the release that configs/constraints.txt gives."""
    lines = (ROOT / "configs/constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): release for name, release in pairs}


@pytest.mark.parametrize("name", ASKED)
def test_every_package_has_a_lowest_and_a_highest_release(name):
    signs = {each.operator for each in ASKED[name].specifier}
    assert signs in ({"=="}, {">=", "<"}), ASKED[name]


def test_a_package_is_asked_for_in_one_way():
    """Several extras may name one."""
    for text in chain(*EXTRAS.values()):
        wanted = Requirement(text)
        if (name := canonicalize_name(wanted.name)) in ASKED:
            assert wanted.specifier == ASKED[name].specifier, text


@pytest.mark.parametrize("name", sorted(set(ASKED) - {"torch"}))
def test_the_known_release_is_one_that_is_admitted(name):
    assert known()[name] in ASKED[name].specifier


def test_torch_is_left_to_the_card_and_what_must_be_new_to_pip():
    assert not LEFT_OPEN & known().keys()


def test_what_the_packages_stand_on_is_known_too():
    """Or a release of next month comes in by the back door."""
    known_here, todo, seen = known(), [*ASKED.values()], set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in seen or name in ("torch", "torchvision", "setuptools", "certifi", "tzdata"):
            continue
        seen.add(name)
        try:
            is_another = known_here.get(name, "") not in ("", version(name))
        except PackageNotFoundError:  # an extra that is not installed
            continue
        if is_another:  # which may stand on something else
            continue
        assert name in known_here, f"{name} is missing in configs/constraints.txt"
        further = map(Requirement, requires(name) or [])
        todo += [
            each
            for each in further
            if not each.marker
            or any(each.marker.evaluate({"extra": e}) for e in ("", *wanted.extras))
        ]
    assert len(seen) > 50


def test_the_readme_takes_what_is_known():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^pip install .*", readme, re.MULTILINE)
    assert len(lines) == 2
    assert all(line.startswith("pip install -c configs/constraints.txt ") for line in lines)


def test_the_weekly_run_tries_the_oldest_the_known_and_the_newest():
    flow = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))
    assert flow[True]["schedule"]  # YAML 1.1 reads `on` as a truth
    matrix = flow["jobs"]["suite"]["strategy"]["matrix"]
    tried = {*matrix["versions"], *(each["versions"] for each in matrix["include"])}
    assert tried == {"known", "newest", "beyond", "floors"}
    assert set(matrix["python"]) == {"3.11", "3.12", "3.13"}
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert all(f".ci/run {name} " in script for name in tried - {"known"})


def test_ci_says_what_it_can_be_asked():
    how = {"cwd": ROOT, "capture_output": True, "text": True}
    told = subprocess.run(["bash", ".ci/run", "oldest"], check=False, **how)
    assert told.returncode == 2 and ".ci/run floors" in told.stderr


def test_ci_prints_what_it_got():
    how = {"cwd": ROOT, "capture_output": True, "text": True}
    told = subprocess.run([sys.executable, ".ci/versions.py"], check=True, **how)
    for name in ("torch", "numpy", "transformers", "pytest"):
        assert f" {name}=={version(name)}" in told.stdout
