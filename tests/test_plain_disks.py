"""Disks and machines that lack what others have: modes of files, locks, a home folder."""

import errno
import os
import pwd
import stat
import sys

import pytest
from folders import check_all, copying, fill, posix, rows, run, tree

from degradations import consent, pair_folder
from restore import cli
from restore.batch import rates
from restore.batch.jobs import plan
from restore.batch.journal import Journal
from restore.batch.runner import run_all
from restore.errors import OutputError
from restore.files import home_folder, locked, open_up, sync_folder
from restore.storage import digests
from restore.storage.listing import Found

fcntl = pytest.importorskip("fcntl")
LACKING = [errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS]


def refusing(code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", LACKING)
def test_a_disk_without_modes_of_files_takes_results(tmp_path, monkeypatch, code):
    """On FAT, or a share of Windows that root mounted, nobody else may change a mode."""
    monkeypatch.setattr(os, "chmod", refusing(code))
    assert run(fill(tmp_path / "in", 3), tmp_path / "out").done == 3
    check_all(tmp_path / "in", tmp_path / "out")
    open_up(tmp_path / "out")


@posix
@pytest.mark.parametrize("code", LACKING)
def test_a_disk_whose_folders_cannot_be_synced_takes_results(tmp_path, monkeypatch, code):
    real = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            refusing(code)()
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert run(fill(tmp_path / "in", 3), tmp_path / "out").done == 3
    check_all(tmp_path / "in", tmp_path / "out")


@posix
def test_a_disk_that_fails_is_told_apart_from_one_that_cannot(tmp_path, monkeypatch):
    for call, act in (("chmod", open_up), ("fsync", sync_folder)):
        (tmp_path / call).mkdir()
        (tmp_path / call / "file").touch()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refusing(errno.EIO))
            with pytest.raises(OSError, match="Input/output"):
                act(tmp_path / call)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_is_named_with_a_mend(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refusing(code))
    told = "cannot be locked: .*; name a folder on another disk"
    with pytest.raises(OutputError, match=f"out: {told}"):
        run(fill(tmp_path / "in", 3), tmp_path / "out")
    assert not tree(tmp_path / "out")
    with pytest.raises(OutputError, match=f"training: {told}"):
        locked(tmp_path / "training").__enter__()
    with pytest.raises(OSError, match=f"pairs: {told}"):
        pair_folder.hold(tmp_path / "pairs", {}).__enter__()


@posix
def test_a_name_that_is_too_long_for_the_disk_costs_one_file(tmp_path):
    """A store, or a list of URLs, may have such names."""
    (tmp_path / "a").write_bytes(b"a")
    found = [Found(tmp_path / "a", key) for key in ("a.png", "k" * 300 + "/b.png", "z/c.png")]
    out = tmp_path / "out"
    jobs = plan(found, out, lambda source: ".png")
    summary = run_all(jobs, copying, Journal(out, "o", "w"))
    assert (summary.done, summary.failed) == (2, 1)
    assert rows(out)[found[1].key]["code"] == "ENAMETOOLONG"


@pytest.fixture
def homeless(monkeypatch):
    """A user who is a number without a name, as in a container."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in list(os.environ):
        if name.startswith(("HOME", "XDG_", "RESTORE_")):
            monkeypatch.delenv(name)


def test_without_a_home_folder_nothing_is_cached_and_no_consent_is_kept(
    homeless, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(b"a")
    assert digests.of([tmp_path / "a"]) == [digests.sha256(tmp_path / "a")]
    assert rates._read() == {}
    consent._keep("recipe.py", "digest")
    assert consent._kept() == {}
    assert os.listdir(tmp_path) == ["a"]


def test_a_home_folder_that_is_needed_and_unknown_is_asked_for(homeless, monkeypatch, capsys):
    assert cli.main(["models", "list"]) == 3
    assert capsys.readouterr().err == (
        "restore: this user has no home folder; set HOME or XDG_DATA_HOME\n"
    )
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert home_folder("data").as_posix() == "/data/restore"


def test_a_list_from_a_stdin_that_is_closed_is_refused(call, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, said = call("upscale", "-")
    assert code == 2 and said.startswith("restore: --list -:") and "Traceback" not in said
