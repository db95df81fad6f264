"""Every block of commands and of Python in README and docs runs as it stands."""

import re
import textwrap

import pytest
from pages import BASH, ROOT, clone, commands, run

PAGES = [
    "README.md",
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")),
]
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
PYTHON = re.compile(r"^( *)```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
FENCES = re.compile(r"^ *```(\S*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SERVED = "docs/tutorials/page.md"  # its Python asks a server: tests/test_web.py runs it
BEFORE = {"docs/tutorials/train.md": "docs/tutorials/recipe.md"}  # what a page goes on from


@pytest.mark.parametrize("name", [name for name in PAGES if BASH.search(TEXT[name])])
def test_commands_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(clone(tmp_path))
    for page in filter(None, (BEFORE.get(name), name)):
        for command in commands(TEXT[page]):
            run(command)


@pytest.mark.parametrize("name", [n for n in PAGES if PYTHON.search(TEXT[n]) and n != SERVED])
def test_python_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(clone(tmp_path))
    space = {"__name__": "page"}
    for _, block in PYTHON.findall(TEXT[name]):
        exec(compile(textwrap.dedent(block), name, "exec"), space)


@pytest.mark.parametrize("name", ["README.md", *(name for name in PAGES if "tutorials" in name)])
def test_no_command_of_a_tutorial_escapes(name):
    for kind, block in FENCES.findall(TEXT[name]):
        assert kind in ("bash", "python") or not re.search(r"^ *(restore|pip|python) ", block, re.M)


def test_who_reads_several_pages_in_one_folder_meets_no_result_of_another():
    """What `degrade` writes is refused where it is there already, made by other words."""
    makers: dict[str, set[str]] = {}
    for name, text in TEXT.items():
        for command in commands(text):
            for made in re.findall(r"restore degrade .* -o (\S+)", command):
                makers.setdefault(made, set()).add(name)
    assert not {made: pages for made, pages in makers.items() if len(pages) > 1}
