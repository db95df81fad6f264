"""Our own files as anybody may have written them: manifests, journals, pairs, caches."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore.batch import verify
from restore.batch.journal import Journal
from restore.batch.rows import is_inside, parsed, results
from restore.checkpoints import manifest
from restore.errors import RestoreError
from restore.storage import digests

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["a.png", "../a", "/etc/passwd", "a/../../b", "", ".", "a\0b", "x/y.json", "..", "C:\\a"]
)
DIGESTS = st.sampled_from(["0" * 64, "g" * 64, "", "00"]) | SCALARS
ROWS = st.fixed_dictionaries(
    {"key": NAMES | SCALARS, "status": st.sampled_from(["done", "failed", "left", "x"]) | ANY},
    optional={
        **dict.fromkeys(("output", "source", "error", "code", "task"), NAMES | SCALARS),
        **dict.fromkeys(("output_sha256", "source_sha256", "options", "weights"), DIGESTS),
        "seconds": SCALARS,
        "warnings": st.lists(SCALARS, max_size=2) | ANY,
        "frames": st.dictionaries(NAMES, DIGESTS) | ANY,
        "size_in": ANY,
    },
)
QUICK = settings(suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=5000)


def lines_of(rows) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def holds(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check_manifest(tmp_path, data):
    try:
        listed = manifest.read(data)
    except ValueError as error:
        assert str(error)
    else:
        assert all(is_inside(name) for name in listed)
    holds(tmp_path, manifest.NAME, data)
    assert all(one.path.startswith(str(tmp_path)) for one in verify.listed(tmp_path))


def check_journal(tmp_path, rows, junk):
    data = lines_of(rows) + b"\n" + junk
    out = tmp_path / "out"
    holds(out, "report.jsonl", data)
    holds(out, ".restore/report.jsonl", data)
    journal = Journal(out, "o", "w", task="upscale")
    for row in journal.latest_rows():
        assert parsed(json.dumps(row).encode()) is not None
        assert all(is_inside(name) for name in results(row))
    for one in verify.verify(out, lambda *_: None):
        assert one.what == "source" or one.state == verify.MOVED or str(out) in one.path


MANIFESTS = st.binary(max_size=60) | (ANY | st.dictionaries(NAMES | st.text(), DIGESTS)).map(
    lambda tree: json.dumps(tree).encode()
)


@QUICK
@given(MANIFESTS)
def test_any_manifest_is_a_list_of_files_below_or_refused(tmp_path, data):
    check_manifest(tmp_path, data)


@QUICK
@given(st.lists(ROWS | ANY, max_size=4), st.binary(max_size=40))
def test_any_journal_is_read_as_far_as_it_is_ours(tmp_path, rows, junk):
    check_journal(tmp_path, rows, junk)


@pytest.mark.slow
@LONG
@given(MANIFESTS)
def test_many_manifests(tmp_path, data):
    check_manifest(tmp_path, data)


@pytest.mark.slow
@LONG
@given(st.lists(ROWS | ANY, max_size=4), st.binary(max_size=40))
def test_many_journals(tmp_path, rows, junk):
    check_journal(tmp_path, rows, junk)


@QUICK
@given(st.binary(max_size=60) | ANY.map(lambda tree: json.dumps(tree).encode()))
def test_any_pairs_json_and_trace_are_findings(tmp_path, data):
    out = tmp_path / "pairs"
    holds(out, "pairs.json", data)
    holds(out, "traces/000000.json", data)
    holds(out, "lr/000001.png", data)
    states = {one.state for one in verify.verify(out, refusing)}
    assert verify.MISSING in states


def refusing(*_):
    raise RestoreError("no")


@QUICK
@given(st.binary(max_size=60) | ANY.map(lambda tree: json.dumps(tree).encode()))
def test_any_cache_of_digests_is_used_or_left(tmp_path, monkeypatch_cache, data):
    store = monkeypatch_cache
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(data)
    path = holds(tmp_path, "a", b"x")
    assert len(digests.of([path])[0]) == 64


@pytest.fixture
def monkeypatch_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return digests._store()
