"""Whose code a recipe may run: a user's consent, kept for a file's path and what is in it."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from degradations.errors import RecipeError

_given: ContextVar[bool] = ContextVar("given", default=False)
_sent: ContextVar[bool] = ContextVar("sent", default=False)
_here: dict[str, str] = {}  # of this process, where it cannot be kept
_KEPT = TypeAdapter(dict[str, str])  # path -> sha256


@contextmanager
def given(is_given: bool = True) -> Iterator[None]:
    """Allow all code that recipes name while the block runs, and keep that for the files met."""
    before = _given.set(is_given or _given.get())
    try:
        yield
    finally:
        _given.reset(before)


@contextmanager
def by_sender() -> Iterator[None]:
    """Allow what comes from a process of ours, which had it; nothing of it is kept."""
    before = _sent.set(True)
    try:
        yield
    finally:
        _sent.reset(before)


def require(path: Path, data: bytes) -> None:
    """Raise RecipeError unless this file, as it is, may run. It is kept if consent is given now."""
    if _sent.get():
        return
    name, digest = str(path.resolve()), sha256(data).hexdigest()
    if _given.get():
        _keep(name, digest)
    elif digest not in (_here.get(name), _kept().get(name)):
        raise RecipeError(
            f"{path}: the recipe would run this code; read it, and if you trust it, allow it as it "
            "is with --allow-code (in Python: allow_code=True)"
        )


def place() -> Path:
    """The file that keeps it."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "restore-toolkit" / "allowed_code.json"


def _kept() -> dict[str, str]:
    try:
        return _KEPT.validate_json(place().read_bytes())
    except (OSError, ValidationError):
        return {}


def _keep(name: str, digest: str) -> None:
    if _here.get(name) == digest:
        return
    _here[name] = digest
    path = place()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_kept(), name: digest}, indent=1) + "\n")
        os.replace(temporary, path)
    except OSError:  # a home that is read-only: it holds for this process alone
        with suppress(OSError):
            temporary.unlink()
