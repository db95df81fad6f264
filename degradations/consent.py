"""Which code a recipe may run: a user's consent, kept by a file's path and content."""

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
    """Allow all code that recipes name while the block runs, and remember that for these files.

    Args:
        is_given: False changes nothing, which saves callers an `if`.
    """
    before = _given.set(is_given or _given.get())
    try:
        yield
    finally:
        _given.reset(before)


@contextmanager
def by_sender() -> Iterator[None]:
    """Allow code that came from another process, which had consent; nothing is remembered."""
    before = _sent.set(True)
    try:
        yield
    finally:
        _sent.reset(before)


def require(path: Path, data: bytes) -> None:
    """Refuse a file's code unless the user allowed it as it is.

    If consent is given at the moment, it is remembered for the file.

    Args:
        path: The Python file.
        data: What is in it.

    Raises:
        RecipeError: If this file was not allowed, or has changed since.
    """
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


def consent_file() -> Path:
    """The file in which consent is remembered. Raises FileNotFoundError if there is no home."""
    try:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError as error:  # a number without a name, as in a container
        told = "this user has no home folder; set HOME or XDG_CONFIG_HOME"
        raise FileNotFoundError(told) from error
    return Path(home) / "restore-toolkit" / "allowed_code.json"


def _kept() -> dict[str, str]:
    try:
        return _KEPT.validate_json(consent_file().read_bytes())
    except (OSError, ValidationError):
        return {}


def _keep(name: str, digest: str) -> None:
    if _here.get(name) == digest:
        return
    _here[name] = digest
    try:
        path = consent_file()
    except FileNotFoundError:  # it holds for this process alone
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_kept(), name: digest}, indent=1) + "\n")
        os.replace(temporary, path)
    except OSError:  # a home that is read-only: it holds for this process alone
        with suppress(OSError):
            temporary.unlink()
