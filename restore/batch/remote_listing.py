"""Which pictures are below a URL, page by page, so that a bucket of any size is listed."""

import itertools
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from restore.batch.remote import is_s3, open_filesystem, refuse_local, retry, s3_objects
from restore.errors import UsageError
from restore.file_search import unlike
from restore.storage.listing import Found
from restore.storage.urls import is_url, redact_error, redact_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WEB = ("http", "https")


def found(url: str, out: str = "") -> Iterator[Found]:
    """Find the files below a URL, folder by folder, or the one file that it names.

    Args:
        url: Of a folder or a file.
        out: URL of the output folder, which is left out if it is inside.

    Raises:
        UsageError: There is nothing, or it cannot be listed.
    """
    refuse_local(url)
    files, top = open_filesystem(url)
    try:
        if urlsplit(url).scheme in WEB or retry(lambda: files.isfile(top)):
            yield _found(url, top, top.split("?")[0].rpartition("/")[2], 0)
            return
        if not retry(lambda: files.isdir(top)):
            raise UsageError(f"{redact_url(url)}: nothing there")
        yield from _walked(url, out)
    except OSError as error:
        raise UsageError(f"{redact_url(url)}: cannot be listed: {redact_error(error)}") from None


def named(url: str) -> Found:
    """The file that a list names by its URL. Nobody is asked whether it is there.

    Its key is its path with the name of the server or the bucket, but never leads up.
    """
    refuse_local(url)
    parts = urlsplit(redact_url(url))
    inside = posixpath.normpath(f"/{parts.path}").lstrip("/")
    key = posixpath.normpath(f"/{parts.netloc}/{inside}").lstrip("/")
    return Found(Path(redact_url(url)), key, "", url)


def _walked(url: str, out: str) -> Iterator[Found]:
    files, top = open_filesystem(url)
    top = top.rstrip("/")
    closed = open_filesystem(out)[1].rstrip("/") if out else ""
    for path, size, md5 in _objects(files, top, closed):
        key = path[len(top) :].strip("/")
        yield _found(url, path, key, size, unlike(key.rpartition("/")[2]), md5)


def _objects(files: "AbstractFileSystem", top: str, closed: str) -> Iterator[tuple[str, int, str]]:
    """(path, bytes, MD5 or "") of each file below a folder; hidden folders and the closed one are
    left out.
    """

    def is_open(folder: str) -> bool:
        inside = folder[len(top) :].strip("/")
        return folder != closed and not any(name.startswith(".") for name in inside.split("/"))

    if is_s3(files):
        for path, size, md5 in s3_objects(files, top):
            folders = itertools.accumulate(path[len(top) + 1 :].split("/")[:-1], "{}/{}".format)
            if all(is_open(f"{top}/{folder}") for folder in folders):
                yield path, size, md5
        return
    for folder, folders, here in files.walk(top, detail=True, on_error="raise"):
        for name in list(folders):
            if not is_open(f"{folder.rstrip('/')}/{name}"):
                del folders[name]
        for name, about in here.items():
            if name:
                yield f"{folder.rstrip('/')}/{name}", about["size"] or 0, ""


def _found(url: str, path: str, key: str, size: int, skip: str = "", md5: str = "") -> Found:
    whole = path if is_url(path) else f"{urlsplit(url).scheme}://{path.lstrip('/')}"
    return Found(Path(redact_url(whole)), key, skip, whole, size, md5)
