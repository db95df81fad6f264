"""What the documents say exists: links, and paths of the code."""

import ast
import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from documents import gallery, reference, site
from PIL import Image

from restore.batch.rows import _Row
from restore.batch.runner import SKIPPED

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "configs" / "constraints.txt"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = re.compile(r"`((?:restore|degradations|tests|tools|configs|docs)/[\w./-]+)`")
TEST = re.compile(r"`(test_\w+\.py)`")


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"
    for path in [*CODE.findall(text), *(f"tests/{name}" for name in TEST.findall(text))]:
        assert (ROOT / path).exists(), f"{page}: {path}"


def documented(node: ast.AST, head: str) -> set[str]:
    """The names below "Args:" or "Attributes:" in the docstring of a class or function."""
    text = (ast.get_docstring(node) or "") + "\n"
    found = re.search(rf"^{head}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    lines = re.findall(r"^    \*{0,2}(\w+(?:, \w+)*):", found[1], re.MULTILINE) if found else []
    return {name for line in lines for name in line.split(", ")}


def parameters(node: ast.AST) -> set[str]:
    return {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)}


@pytest.mark.parametrize("folder", ["degradations", "restore", "tools"])
def test_docstrings_name_arguments_and_attributes_that_exist(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                unknown = documented(node, "Args") - parameters(node)
            elif isinstance(node, ast.ClassDef):
                inits = [one for one in node.body if getattr(one, "name", "") == "__init__"]
                taken = set().union(*map(parameters, inits))
                known = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
                known |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
                known |= {getattr(one, "name", "") for one in node.body}
                unknown = documented(node, "Args") - taken if inits else set()
                unknown |= documented(node, "Attributes") - known
            else:
                continue
            wrong += [f"{path.relative_to(ROOT)}: {node.name}: {name}" for name in unknown]
    assert not wrong


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.name == "index.md" or page.relative_to(ROOT / "docs").as_posix() in index


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.skipif(
    f"typer=={version('typer')}" not in CONSTRAINTS.read_text(encoding="utf-8").splitlines(),
    reason="typers differ in what they say of a command",
)
@pytest.mark.parametrize("name", ["commands.md", "options.md", "python.md"])
def test_the_reference_is_what_the_code_says(name):
    held = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    made = reference.make_pages()[name]
    assert held == made, "run `python tools/docs.py reference` and commit docs/reference"


def test_nothing_that_is_made_tells_where_it_was_made():
    for folder in ("docs", "configs"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".md", ".json", ".ipynb"):
                assert str(ROOT) not in path.read_text(encoding="utf-8"), path


def test_every_option_is_in_the_reference():
    held = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for word in ("`--find-scratches`", "`--tile`", "`--json`", "## restore degrade estimate"):
        assert (word in held) == (word != "`--tile`")


def test_every_code_of_a_report_is_explained():
    held = (ROOT / "docs" / "reference" / "report.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "restore").rglob("*.py"))
    codes = {*re.findall(r'ImageError\(\s*"([A-Z_]+)"', source), *SKIPPED}
    codes |= set(re.findall(r'^    code = "([A-Z_]+)"', source, re.MULTILINE))
    codes |= {"INTERNAL", "CRASHED", "TIMEOUT", "OOM"}
    assert len(codes) > 20 and not {code for code in codes if f"`{code}`" not in held}


def test_every_field_of_a_row_is_explained():
    held = (ROOT / "docs" / "reference" / "report.md").read_text(encoding="utf-8")
    made = [ROOT / "restore" / "batch" / f"{name}.py" for name in ("step", "work", "words")]
    source = "".join(path.read_text(encoding="utf-8") for path in made)
    fields = {*_Row.model_fields, *re.findall(r'[{ ]"(\w+)": (?!")', source)}
    assert "n_frames" in fields and not {field for field in fields if f"`{field}`" not in held}


def test_every_page_is_in_the_menu():
    def pages(menu):
        for entry in menu:
            below = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from [below] if isinstance(below, str) else pages(below)

    menu = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    docs = ROOT / "docs"
    assert sorted(menu) == sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.md"))


def test_links_stay_in_the_site(tmp_path):
    site.copy_pages(tmp_path / "site")
    pages = list((tmp_path / "site" / "docs").rglob("*.md"))
    assert (tmp_path / "site" / "docs" / site.ASIDE / "configs/train/README.md") in pages
    for page in pages:
        text = site.CODE.sub("", page.read_text(encoding="utf-8"))
        for _, path, _, _ in site.LINK.findall(text):
            if path and not path.startswith("http"):
                target = (page.parent / path).resolve()
                assert target.is_file() and target.is_relative_to(tmp_path), (page, path)


def test_a_link_that_leads_nowhere_ends_the_building(tmp_path, monkeypatch):
    page = tmp_path / "docs" / "index.md"
    page.parent.mkdir()
    page.write_text("[gone](gone.md)")
    (tmp_path / "mkdocs.yml").write_text("")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="leads nowhere"):
        site.copy_pages(tmp_path / "site")


@pytest.mark.parametrize("path", sorted((ROOT / "docs/notebooks").glob("*.ipynb")))
def test_a_notebook_finds_the_clone_from_its_own_folder(path, monkeypatch):
    """Jupyter starts there."""
    cells = json.loads(path.read_text())["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.chdir(path.parent)
    exec(first, {})
    assert Path.cwd() == ROOT


def test_the_gallery_shows_what_the_code_makes(tmp_path):
    made_at, again = tmp_path / "images", "run `python tools/docs.py gallery`, commit docs/images"
    gallery.write(made_at)
    shown = (ROOT / "docs/gallery.md").read_text() + (ROOT / "docs/concepts.md").read_text()
    for path in made_at.iterdir():
        assert f"images/{path.name}" in shown
        with Image.open(path) as made, Image.open(ROOT / "docs/images" / path.name) as held:
            assert made.size == held.size, again
            if path.name.startswith("gallery_e"):  # the others hang on fonts, or are small
                assert np.abs(np.asarray(made).astype(int) - np.asarray(held)).mean() < 2, again
