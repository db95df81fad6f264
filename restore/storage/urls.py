"""URLs without their secrets, for messages and reports."""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of two letters at least: C: is a disk
WAS_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
SECRETS = re.compile(r"(?<=://)[^/\s@]*@|(?<=[^\s?'\"])\?[^\s'\"]*")  # in the message of an error


def is_url(given: object) -> bool:
    return URL.match(str(given)) is not None


def was_url(path: Path) -> bool:
    """Whether a path was made from a URL, whose second slash it lost."""
    return WAS_URL.match(str(path)) is not None


def redact_url(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redact_error(error: Exception) -> str:
    """The first line of an error's message, without the secrets of URLs in it."""
    lines = str(error).splitlines()
    return SECRETS.sub("", lines[0] if lines else type(error).__name__)
