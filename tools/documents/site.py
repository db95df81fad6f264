"""The documents as a site: the pages of docs/, and the files outside that they link to."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASIDE = "repository"  # the folder of the site for what lies outside of docs/
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
BRACKETS = re.compile(r"\[([^\]\n]*)\](?![(\[:])")  # that are no link
CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def build(out: Path) -> int:
    """Build the site in a new folder.

    Returns:
        zensical's exit code, 1 for a broken link.
    """
    copy_pages(out)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=out, check=False).returncode


def copy_pages(out: Path) -> None:
    """Copy the pages and all that they link to, so that all links stay within the site.

    Raises:
        FileNotFoundError: A link is broken.
    """
    out.mkdir(parents=True)
    shutil.copy(ROOT / "mkdocs.yml", out)
    todo = [path for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()]
    done: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in done or "__pycache__" in path.parts:
            continue
        done.add(path)
        target = out / "docs" / map_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text, targets = rewrite_links(path)
            target.write_text(text, encoding="utf-8")
            todo += targets
        else:
            shutil.copy(path, target)


def map_path(path: Path) -> Path:
    """Return the path in the site of a file of the repository."""
    inside = path.relative_to(ROOT)
    if inside.parts[0] == "docs":
        return inside.relative_to("docs")
    return ASIDE / inside


def rewrite_links(page: Path) -> tuple[str, list[Path]]:
    """Rewrite the links of a page for the site.

    Returns:
        The new text, and the files that its links lead to.
    """
    targets: list[Path] = []

    def link(found: re.Match[str]) -> str:
        before, path, anchor, after = found.groups()
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        target = (page.parent / path).resolve()
        target = target / "README.md" if target.is_dir() else target
        if not target.is_file():
            raise FileNotFoundError(f"{page}: {path} leads nowhere")
        targets.append(target)
        way = os.path.relpath(map_path(target), map_path(page).parent)
        return before + Path(way).as_posix() + (anchor or "") + after

    def prose(words: str) -> str:
        if not page.is_relative_to(ROOT / "docs"):  # written for another reader of Markdown
            words = BRACKETS.sub(r"\\[\1\\]", words)
        return LINK.sub(link, words)

    text, parts, last = page.read_text(encoding="utf-8"), [], 0
    for code in CODE.finditer(text):  # which is left as it is
        parts += [prose(text[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*parts, prose(text[last:])]), targets
