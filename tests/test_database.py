"""A temporary database: any name, any number of rows, any thread, and a disk without room."""

import threading

import pytest

from restore.errors import OutputError
from restore.storage.database import PAGE, TemporaryDatabase, to_bytes, to_text
from restore.storage.listing import Found, Listing, kept

NAMES = [
    "",
    "a",
    "B",
    "z\0",
    "é",
    "e\u0301",
    "\udcff",
    "\ud83d",
    "😀",
    "\uffff",
    "a/b",
    "a.b",
    "a b",
]


def test_names_come_back_and_are_in_the_order_of_texts():
    assert [to_text(to_bytes(name)) for name in NAMES] == NAMES
    assert sorted(NAMES) == sorted(NAMES, key=to_bytes)


def test_a_listing_is_a_sorted_list_of_different_files(tmp_path):
    files = [Found(tmp_path / str(nth), f"{nth % 7}/{nth}") for nth in range(3 * PAGE)]
    again = Found(tmp_path / "0", "0/again")
    listing = Listing((str(file.path), file) for file in [*files, again])
    assert list(listing) == sorted(files, key=lambda file: file.key)
    assert len(listing) == listing.met == len(files)
    assert listing[-1] == list(listing)[-1] and listing[1:3] == list(listing)[1:3]
    with pytest.raises(IndexError):
        listing[len(files)]
    even = kept(listing, lambda key: key.startswith("2/"))
    assert list(even) == [file for file in listing if file.key.startswith("2/")]


def test_pages_may_be_read_by_several_threads_while_rows_change():
    database = TemporaryDatabase("CREATE TABLE row(nth INTEGER PRIMARY KEY, seen INTEGER)")
    database.add_all("INSERT INTO row(seen) VALUES (?)", ((0,) for _ in range(3 * PAGE)))
    counts = []

    def read():
        rows = database.pages("SELECT nth FROM row WHERE nth > ? ORDER BY nth")
        for number, (nth,) in enumerate(rows, 1):
            assert nth == number
            database.run("UPDATE row SET seen = seen + 1 WHERE nth = ?", nth)
        counts.append(number)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [3 * PAGE] * 3
    assert database.all("SELECT DISTINCT seen FROM row") == [(3,)]


def test_a_disk_without_room_is_an_error_with_a_mend():
    database = TemporaryDatabase("PRAGMA max_page_count = 4; CREATE TABLE row(data BLOB)")
    with pytest.raises(OutputError, match="TMPDIR"):
        database.run("INSERT INTO row VALUES (?)", bytes(100_000))
    for query in ("SELECT * FROM row", "SELECT count(*) FROM row"):  # half of it may be lost
        with pytest.raises(OutputError, match="TMPDIR"):
            database.all(query)
