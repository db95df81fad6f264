"""The files of a run, on disks and in object stores."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from restore import file_search
from restore.batch import remote_listing
from restore.batch.destination import Destination
from restore.file_search import Choice
from restore.storage.listing import Found, Listing
from restore.storage.urls import is_url, redact_url

ALL = Choice()


def find(
    inputs: Sequence[str | Path],
    destination: Destination,
    choice: Choice = ALL,
    listed: Iterable[str] = (),
) -> Listing:
    """Find the files of a run, as `file_search.find` does; an input may also be a URL.

    Args:
        inputs: Files, folders or URLs.
        destination: Where the results go; an output folder inside an input is left out.
        choice: Which of the files are taken.
        listed: Paths and URLs of files, named one by one.

    Raises:
        UsageError: An input is missing, a URL cannot be listed, or there is no picture at all.
    """

    def found() -> Iterator[Found]:
        for given in inputs:
            if is_url(given):
                yield from remote_listing.found(str(given), destination.url)
        paths = (Path(given) for given in inputs if not is_url(given))
        yield from file_search.met(paths, destination.home, choice.links)
        for name in listed:
            yield remote_listing.named(name) if is_url(name) else file_search.named(Path(name))

    names = (redact_url(str(given)) if is_url(given) else str(given) for given in inputs)
    return file_search.gathered(found(), choice, ", ".join(names))
