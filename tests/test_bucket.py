"""A place in an object store that several machines work on in turn."""

import json
import shutil

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from restore.batch import inputs, remote, runner
from restore.batch.bucket import Bucket
from restore.batch.destination import Destination
from restore.batch.jobs import Jobs, Shard, plan
from restore.batch.journal import Journal
from restore.batch.store import note_name
from restore.errors import UsageError
from restore.files import TEMPORARY
from restore.storage.listing import Found

URL = "memory://shop/out"
NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(autouse=True)
def _shop(monkeypatch):
    monkeypatch.setattr(remote, "WAIT_S", 0)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


def copying(job, path, *frames):
    shutil.copy(job.source, path)
    return {"warnings": []}


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Runs over some files as a machine of this name does, which has a cache of its own."""
    for name in NAMES:
        (tmp_path / f"{name}.png").write_bytes(name.encode())

    def run(machine, names=NAMES, share="1/1", options="", **more):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        place, shard = Destination.parse(URL), Shard.parse(share)
        found = [Found(tmp_path / f"{name}.png", f"{name}.png") for name in names]
        jobs = plan(found, place.out, lambda source: ".png")
        jobs = Jobs([file for file in found if shard.holds(file.key)], jobs.make)
        place.store.begin(place.home)
        journal = Journal(place.out, options, "", shard.ending, store=place.store)
        return runner.run_all(jobs, copying, journal, **more)

    return run


def told(name="report"):
    lines = MemoryFileSystem().cat_file(f"/shop/out/{name}.jsonl").splitlines()
    return {row["key"][0]: row["status"] for row in map(json.loads, lines)}


def test_machines_take_turns_and_each_knows_what_the_others_did(on):
    assert on("one", "a").done == 1
    assert (on("two", "abc").finished, told()) == (1, dict.fromkeys("abc", "done"))
    again = on("one", "abc")
    assert (again.finished, again.failed) == (3, 0)
    assert on("two", "d").done == 1
    assert told() == dict.fromkeys("abcd", "done")
    assert on("one", "a", options="other").done == 1
    assert on("two", "a", options="other").finished == 1


def test_shares_of_two_machines_become_one_whole_and_none_uploads_anothers(on):
    on("one", NAMES[:4], "1/2")
    on("two", NAMES[:4], "2/2")
    on("two", NAMES[:4], "1/2")  # it has both reports now, and the first machine an old one
    on("two", NAMES, "2/2")
    both = [told(f"report.{nth}-of-2") for nth in (1, 2)]
    on("one", NAMES, "1/2")
    assert told("report.2-of-2") == both[1] and told("report.1-of-2").items() >= both[0].items()
    whole = on("one")
    assert (whole.finished, whole.done, whole.failed) == (6, 0, 0)
    assert told() == dict.fromkeys(NAMES, "done")


def test_a_report_that_nobody_changed_is_not_downloaded_again(on, monkeypatch):
    asked = []
    get = MemoryFileSystem.get_file
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda fs, *given: (asked.append(given[0]), get(fs, *given))
    )
    on("one"), on("one")
    assert asked == []
    on("two"), on("two")
    assert len(asked) == 1


def test_a_run_that_was_not_uploaded_is_not_lost_when_another_machine_goes_on(on, monkeypatch):
    on("one", "a")
    end = Bucket.end
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bucket, "end", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        on("one", "ab")
    assert Bucket.end is end
    on("two", "c")
    whole = on("one", "abc")
    assert (whole.finished, whole.done, whole.failed) == (3, 0, 0)


@pytest.mark.parametrize("name", ["out[1]", "out?", "o*t", "out[1"])
def test_a_place_may_have_any_name_and_its_neighbours_lose_nothing(on, monkeypatch, name):
    """As a glob it also names places beside it."""
    monkeypatch.setitem(globals(), "URL", f"memory://shop/{name}")
    files, note = MemoryFileSystem(), f".restore/{note_name('a.png')}"
    beside = [f"/shop/{place}/{note}" for place in ("out1", "outx", "ot")]
    for path in beside:
        files.pipe_file(path, b"{}")
    assert on("one", "a").done == 1
    files.pipe_file(f"/shop/{name}/{note}", b"torn")
    assert (on("one", "ab").done, on("two", "abc").finished, on("one", "abc").done) == (1, 2, 0)
    assert all(files.cat_file(path) == b"{}" for path in beside)
    assert not files.find(f"/shop/{name}/.restore/rows")


def test_a_store_takes_longer_names_of_folders_than_this_machine(on, tmp_path):
    on("one", "a")
    place = Destination.parse(URL)
    found = [Found(tmp_path / "a.png", "k" * 300 + "/a.png")]
    jobs = plan(found, place.out, lambda source: ".png")
    for count in ("done", "finished"):
        summary = runner.run_all(jobs, copying, Journal(place.out, "", "", store=place.store))
        assert getattr(summary, count) == 1
    assert MemoryFileSystem().cat_file(f"/shop/out/{found[0].key}") == b"a"


def test_what_a_killed_run_left_in_the_cache_is_removed_by_the_next(on, tmp_path):
    on("one", "a")
    out = Destination.parse(URL).out
    making = Destination.parse(URL).store.making("b.png")
    left = making.__enter__()  # and never left
    assert left.name.startswith(TEMPORARY) and list(out.glob(f"{TEMPORARY}*"))
    on("one", "a")
    assert not left.exists() and not list(out.glob(f"{TEMPORARY}*"))
    making.gen.close()


OURS = TypeError, AttributeError, NameError, AssertionError, MemoryError


@pytest.mark.parametrize("error", OURS)
def test_a_mistake_of_ours_is_no_fault_of_the_network(error):
    asked = []

    def what():
        asked.append(1)
        raise error("no")

    with pytest.raises(error):
        remote.retry(what)
    assert len(asked) == 1


def test_a_url_of_this_machine_is_refused_with_the_path_to_give(tmp_path):
    url, here = f"file://{tmp_path}/a%20b", f"give the path itself: {tmp_path}/a b"
    for name in (lambda: Destination.parse(url), lambda: inputs.find([url], Destination(tmp_path))):
        with pytest.raises(UsageError, match=here):
            name()
    with pytest.raises(UsageError, match=here):
        inputs.find([], Destination(tmp_path), listed=[url])
