"""Object stores and web servers through fsspec: s3, gs, az, http and whatever else it supports.

Secrets in a URL, such as a password or a signature, are used but never shown.
"""

import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from restore.errors import RestoreError, UsageError
from restore.storage.urls import redact_error, redact_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TRIES = 4
MD5 = re.compile(r"[0-9a-f]{32}")
WAIT_S = 0.5  # before the second try; twice as long before each later one
Made = TypeVar("Made")


def refuse_local(url: str) -> None:
    """Raise UsageError if a URL names a file or folder of this machine, which is no object store.

    To a store its results would be objects without a report, and none of the rules of a disk hold.
    """
    parts = urlsplit(url)
    if parts.scheme.casefold() in ("file", "local"):
        raise UsageError(f"{url}: is of this machine; give the path itself: {unquote(parts.path)}")


@cache
def open_filesystem(url: str) -> "tuple[AbstractFileSystem, str]":
    """Open a URL.

    Returns:
        (the file system, the path in it)

    Raises:
        UsageError: No installed package supports the URL.
    """
    if find_spec("fsspec") is None:
        mend = "pip install 'restore-toolkit[remote]'"
        raise UsageError(f"{redact_url(url)}: fsspec is missing, by which URLs are read; {mend}")
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        mend = "pip install 'restore-toolkit[remote]' for s3, gcsfs for gs, adlfs for az"
        raise UsageError(f"{redact_url(url)}: {redact_error(error)}; {mend}") from None
    return files, path


def retry(what: Callable[[], Made]) -> Made:
    """Call `what` and return its result; try again after a fault of the network or the server.

    Raises:
        FileNotFoundError, FileExistsError, PermissionError, RestoreError: At once, and so are
            mistakes of ours and a full memory: no other try would do better.
        OSError: All tries failed; its message holds no secret.
    """
    for number in range(TRIES):
        try:
            return what()
        except (FileNotFoundError, FileExistsError, PermissionError, RestoreError):
            raise
        except (TypeError, AttributeError, NameError, AssertionError, MemoryError):
            raise
        except Exception as error:  # each library has its own
            if number == TRIES - 1:
                raise OSError(redact_error(error)) from None
            time.sleep(WAIT_S * 2**number)
    raise AssertionError


def is_s3(files: "AbstractFileSystem") -> bool:
    return "s3" in files.protocol


def s3_objects(files: "AbstractFileSystem", top: str) -> Iterator[tuple[str, int, str]]:
    """(path, bytes, MD5) of each object below a folder of S3, a thousand at a time in memory.

    The MD5 is empty where the ETag is something else, as after an upload in parts.
    """
    bucket, _, folder = top.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else "", **files.req_kw}
    is_cut = True
    while is_cut:
        page = retry(lambda: files.call_s3("list_objects_v2", **asked))
        for about in page.get("Contents", []):
            if not about["Key"].endswith("/"):  # else it stands for a folder
                etag = about.get("ETag", "").strip('"')
                yield f"{bucket}/{about['Key']}", about["Size"], etag if MD5.fullmatch(etag) else ""
        is_cut = page.get("IsTruncated", False)
        asked["ContinuationToken"] = page.get("NextContinuationToken", "")
