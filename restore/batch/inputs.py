"""The files of a run, on disks and in object stores."""

from collections.abc import Sequence
from pathlib import Path

from restore import file_search
from restore.batch import remote
from restore.batch.destination import Destination
from restore.batch.urls import is_url, redact_url
from restore.errors import UsageError
from restore.file_search import Choice, Found

ALL = Choice()


def find(
    inputs: Sequence[str | Path],
    destination: Destination,
    choice: Choice = ALL,
    listed: Sequence[Path] = (),
) -> list[Found]:
    """Find the files of a run, as `file_search.find` does; an input may also be a URL.

    Args:
        inputs: Files, folders or URLs.
        destination: Where the results go; an output folder inside an input is left out.
        choice: Which of the files are taken.
        listed: Files named one by one.

    Raises:
        UsageError: An input is missing, a URL cannot be listed, or there is no picture at all.
    """
    urls = [str(given) for given in inputs if is_url(given)]
    paths = [Path(given) for given in inputs if not is_url(given)]
    met = [file for url in urls for file in remote.find(url, choice, destination.url)]
    found = list({file.url: file for file in met}.values())
    if paths or listed or not urls:
        found += file_search.find(paths, destination.home, choice, listed)
    elif all(file.skip for file in found):
        raise UsageError(f"{', '.join(map(redact_url, urls))}: no picture here")
    return sorted(found, key=lambda file: file.key)
