"""Pictures in an object store: what a folder's run makes, whatever the network does."""

import json
import logging
import random
from collections import Counter
from importlib.util import find_spec

import pytest
import stores
from folders import counts, tree
from teams import Watch, model, photos, report

from restore import batch, cli
from restore.batch import bucket, inputs, ray_executor, remote
from restore.batch.destination import Destination
from restore.batch.store import note_name
from restore.errors import OutputError, UsageError
from restore.options import UpscaleOptions
from restore.storage import urls

fixtures = model, photos
MISSING = [name for name in ("s3fs", "moto", "flask") if find_spec(name) is None]
pytestmark = [
    pytest.mark.store,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore"),  # theirs
]


@pytest.fixture
def shop(monkeypatch):
    """(address, faults) of a server whose bucket is called shop."""
    remote.open_filesystem.cache_clear()
    monkeypatch.setattr(remote, "WAIT_S", 0.01)
    with stores.served(monkeypatch) as store:
        yield store
    remote.open_filesystem.cache_clear()


@pytest.fixture
def stock(shop, photos):
    """Puts so many pictures into the store, of which one in a hundred is broken."""
    import s3fs

    def put(count):
        folder = photos(count)
        s3fs.S3FileSystem().put(f"{folder}/", "shop/in/", recursive=True)
        return (*shop, folder)

    return put


@pytest.fixture
def stocked(stock):
    """The server, with seven pictures of which one is broken, and their folder."""
    return stock(7)


ONLY_HERE = ("seconds", "load_s", "source", "source_md5")  # in rows


def run(given, out, model, **more):
    """As the command line, in this process or by others."""
    place = Destination.parse(out)
    files = inputs.find([given], place)
    opened = batch.open_model(str(model), "cpu")
    return batch.run(files, UpscaleOptions(scale=1, steps=1), out, opened, **more)


def stored(prefix: str) -> dict[str, bytes]:
    """The pictures under a prefix."""
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    names = [name for name in files.find(prefix) if name.endswith(".png")]
    return {name.removeprefix(f"{prefix}/"): files.cat_file(name) for name in names}


def told(prefix: str) -> list[dict]:
    """The report there, without what differs."""
    import s3fs

    lines = s3fs.S3FileSystem(use_listings_cache=False).cat_file(f"{prefix}/report.jsonl")
    rows = [json.loads(line) for line in lines.splitlines()]
    return [{k: row[k] for k in row if k not in ONLY_HERE} for row in rows]


def check_as(out, prefix: str) -> None:
    assert stored(prefix) == tree(out)
    mine = [{k: row[k] for k in row if k != "source"} for row in report(out)]
    assert told(prefix) == mine


def test_a_bucket_is_worked_on_as_a_folder_is(stocked, tmp_path, model, monkeypatch):
    _, faults, folder = stocked
    run(folder, tmp_path / "out", model)
    made = run("s3://shop/in", "s3://shop/out", model)
    assert (made.done, made.failed) == (6, 1)
    check_as(tmp_path / "out", "shop/out")
    puts = [path for method, path in faults.seen if method == "PUT" and path.endswith(".png")]
    results = [path for path in puts if path.startswith("/shop/out/")]
    assert len(results) == len(set(results)) == 6  # one each, and no copy
    again = run("s3://shop/in", "s3://shop/out", model)
    assert (again.finished, again.done) == (6, 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    elsewhere = run("s3://shop/in", "s3://shop/out", model)
    assert (elsewhere.finished, elsewhere.done) == (6, 0)
    here = run("s3://shop/in", tmp_path / "here", model)  # and in a mixture
    assert here.done == 6 and tree(tmp_path / "here") == tree(tmp_path / "out")


def test_two_machines_take_turns(stocked, tmp_path, model, monkeypatch):
    import s3fs

    files = s3fs.S3FileSystem()
    for machine, finished, done in (("a", 0, 6), ("b", 6, 1), ("a", 7, 0)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        made = run("s3://shop/in", "s3://shop/out", model)
        assert (made.finished, made.done, made.failed) == (finished, done, 1)
        files.pipe_file("shop/in/new.png", files.cat_file("shop/in/0/0000.png"))


def test_a_picture_costs_a_store_four_requests(stocked, model):
    _, faults, _ = stocked
    run("s3://shop/in", "s3://shop/out", model)
    asked = Counter(ask for ask in faults.seen if ask[1].endswith("/0000.png"))
    note = f"/shop/out/.restore/{note_name('0/0000.png')}"
    assert asked == {
        ("PUT", "/shop/in/0/0000.png"): 1,  # of this test
        ("GET", "/shop/in/0/0000.png"): 1,
        ("HEAD", "/shop/out/0/0000.png"): 1,
        ("PUT", "/shop/out/0/0000.png"): 1,
    }
    assert faults.seen.count(("PUT", note)) == 1
    faults.seen.clear()
    assert run("s3://shop/in", "s3://shop/out", model).finished == 6
    asked = Counter(ask for ask in faults.seen if ask[1].endswith("/0000.png"))
    assert asked == {("HEAD", "/shop/out/0/0000.png"): 1}


def test_what_changed_in_a_store_is_seen(stocked, model):
    import s3fs

    files = s3fs.S3FileSystem()
    run("s3://shop/in", "s3://shop/out", model)
    changed, lost, *_ = sorted(stored("shop/out"))
    files.pipe_file(f"shop/in/{changed}", files.cat_file(f"shop/in/{lost}"))
    files.rm_file(f"shop/out/{lost}")
    again = run("s3://shop/in", "s3://shop/out", model)
    assert (again.done, again.finished, again.failed) == (1, 4, 2)  # one is broken
    assert [row.get("code") for row in told("shop/out") if row["key"] == changed] == ["EXISTS"]
    assert run("s3://shop/in", "s3://shop/out", model, exists="overwrite").done == 6


@pytest.mark.parametrize(("count", "latency_s"), counts((24, 0.1), (40, 0.2)))
def test_the_way_to_a_store_is_not_added_to_the_work(stock, model, count, latency_s):
    _, faults, _ = stock(count)
    near = run("s3://shop/in", "s3://shop/near", model)
    faults.seen.clear()
    faults.latency_s = latency_s
    far = run("s3://shop/in", "s3://shop/far", model)
    own = [path for _, path in faults.seen if path.endswith((".png", ".json"))]
    print(f"\n{count} pictures: {near.seconds} s near, {far.seconds} s far; {len(own)} requests")
    assert near.done == far.done == count - 1 and len(own) > 3 * count
    assert far.seconds - near.seconds < latency_s * len(own) / 2
    assert faults.busiest > 4


@pytest.mark.parametrize("devices", [(), ("cpu",)])
def test_an_upload_that_is_refused_ends_the_run_and_loses_nothing(stocked, model, devices):
    _, faults, _ = stocked
    faults.fault = lambda _, method, path: (
        "403" if method == "PUT" and path == "/shop/out/2/0002.png" else ""
    )
    with pytest.raises(OutputError, match="s3://shop/out"):
        run("s3://shop/in", "s3://shop/out", model, devices=devices)
    faults.fault = lambda *_: ""
    made = run("s3://shop/in", "s3://shop/out", model)
    assert made.left == 0 and made.finished + made.done == 6
    assert len(told("shop/out")) == 7 and len(stored("shop/out")) == 6


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", counts(7, [1000]))
def test_a_server_that_fails_now_and_then_loses_nothing(stock, tmp_path, model, monkeypatch, count):
    import s3fs

    _, faults, folder = stock(count)
    run(folder, tmp_path / "out", model)
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", stores.PATIENCE_S)
    s3fs.S3FileSystem.clear_instance_cache()
    remote.open_filesystem.cache_clear()
    faulty = []

    def fault(number, method, path):
        what = ("", "", "503", "", "", "lost")[number % 6]
        what = "late" if number % 500 == 40 else what
        if what:
            faulty.append(what)
        return what

    faults.fault = fault
    watch = Watch()
    made = run("s3://shop/in", "s3://shop/out", model, show=watch)
    faults.fault = lambda *_: ""
    broken = len(range(3, count, 100))
    assert (made.done, made.failed, made.left) == (count - broken, broken, 0)
    assert len(watch.keys) == len(set(watch.keys)) == count
    assert {"503", "lost", "late"} <= set(faulty)
    check_as(tmp_path / "out", "shop/out")


def test_a_large_report_survives_the_loss_of_its_parts(shop, tmp_path, monkeypatch):
    import s3fs

    _, faults = shop
    monkeypatch.setattr(bucket, "PART", 5 * 2**20)  # the least that S3 takes
    report = tmp_path / "report.jsonl"
    report.write_bytes(random.Random(0).randbytes(12 * 2**20))
    met = {"post": 0, "put": 0}

    def fault(number, method, path):
        if path.endswith("/report.jsonl") and method in ("PUT", "POST"):
            met[method.lower()] += 1
            first = met[method.lower()] % 2 == 1
            return ("lost" if method == "POST" else "503") if first else ""
        return ""

    faults.fault = fault
    bucket.Bucket(tmp_path, "s3://shop/out").end(tmp_path)
    faults.fault = lambda *_: ""
    files = s3fs.S3FileSystem(use_listings_cache=False)
    assert met["put"] >= 3 and met["post"] >= 2
    assert files.cat_file("shop/out/report.jsonl") == report.read_bytes()


def test_a_listing_of_many_pages_is_whole_and_leaves_out_what_is_hidden(shop, tmp_path):
    import s3fs

    files = s3fs.S3FileSystem()
    names = {f"in/{nth % 3}/{nth:04}.png" for nth in range(1100)}
    hidden = {"in/out/1.png", "in/0/.restore/rows/2.png", "other/3.png", "in2/4.png"}
    files.pipe({f"shop/{name}": b"data" for name in names | hidden})
    found = inputs.find(["s3://shop/in"], Destination.parse("s3://shop/in/out"))
    assert [f"in/{file.key}" for file in found] == sorted(names)
    assert {file.size for file in found} == {4} and not any(file.skip for file in found)
    assert found[0].url == "s3://shop/in/0/0000.png"


def test_a_list_of_urls_is_worked_on(stocked, tmp_path, model):
    listed = tmp_path / "list"
    listed.write_text("s3://shop/in/0/0000.png\ns3://shop/in/none.png\n")
    words = ["upscale", "--list", listed, "-s", 1, "--steps", 1, "--model", model]
    words += ["--device", "cpu", "-o", tmp_path / "out"]
    assert cli.main(list(map(str, words))) == 1
    status = {row["key"]: row["status"] for row in report(tmp_path / "out")}
    assert status == {"shop/in/0/0000.png": "done", "shop/in/none.png": "failed"}


def test_a_machine_that_is_lost_loses_no_result(stocked, tmp_path, model, monkeypatch):
    _, _, folder = stocked
    run(folder, tmp_path / "out", model)

    def lost(store, home, ending):
        raise OutputError("it had no time for it")

    def end(row):
        if len(watch.keys) == 3:
            raise KeyboardInterrupt

    watch, end_of = Watch(end), bucket.Bucket.end
    monkeypatch.setattr(bucket.Bucket, "end", lost)
    with pytest.raises(KeyboardInterrupt):
        run("s3://shop/in", "s3://shop/out", model, show=watch)
    monkeypatch.setattr(bucket.Bucket, "end", end_of)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    made = run("s3://shop/in", "s3://shop/out", model)
    assert made.finished >= 2 and made.left == 0
    check_as(tmp_path / "out", "shop/out")


def test_what_another_made_is_not_replaced(stocked, tmp_path, model):
    import s3fs

    s3fs.S3FileSystem().pipe_file("shop/out/0/0000.png", b"not ours")
    made = run("s3://shop/in", "s3://shop/out", model)
    assert (made.done, made.failed) == (5, 2)
    assert s3fs.S3FileSystem().cat_file("shop/out/0/0000.png") == b"not ours"
    [row] = [row for row in told("shop/out") if row["key"] == "0/0000.png"]
    assert row["code"] == "EXISTS" and "s3://shop/out/0/0000.png" in row["error"]


def test_secrets_of_a_url_are_told_nowhere(stocked, tmp_path, model, capsys, caplog):
    address, _, _ = stocked
    caplog.set_level(logging.DEBUG, "restore")
    host = address.removeprefix("http://")
    good = f"http://me:PASSWORD@{host}/shop/in/0/0000.png?X-Amz-Signature=SIGNED"
    bad = f"http://me:PASSWORD@{host}/shop/in/none.png?X-Amz-Signature=SIGNED"
    words = ["upscale", good, bad, "-s", 1, "--steps", 1, "--model", model, "--device", "cpu"]
    assert cli.main(list(map(str, [*words, "-o", tmp_path / "out", "--verbose"]))) == 1
    written = "".join(p.read_text("latin-1") for p in (tmp_path / "out").rglob("*") if p.is_file())
    said = capsys.readouterr()
    mine = [one for one in caplog.records if one.name.startswith("restore")]
    logged = "".join(one.getMessage() for one in mine)
    for secret in ("PASSWORD", "SIGNED", "KEYSECRET"):
        assert secret not in written and secret not in said.out + said.err + logged
    rows = {row["key"]: row for row in report(tmp_path / "out")}
    assert rows["0000.png"]["source"] == f"http://{host}/shop/in/0/0000.png"
    assert rows["none.png"]["code"] == "UNREADABLE"


def test_a_url_that_leads_nowhere_is_refused(shop, tmp_path):
    with pytest.raises(UsageError, match="s3://shop/nothing"):
        inputs.find(["s3://shop/nothing"], Destination(tmp_path))
    with pytest.raises(UsageError, match="what://x"):
        inputs.find(["what://x/y"], Destination(tmp_path))
    assert (
        urls.redact_error(OSError("GET https://a:b@c.d/e.png?sig=1 failed"))
        == "GET https://c.d/e.png failed"
    )


def test_workers_share_a_bucket(stocked, tmp_path, model):
    _, _, folder = stocked
    run(folder, tmp_path / "out", model)
    run("s3://shop/in", "s3://shop/out", model, devices=["cpu", "cpu"])
    check_as(tmp_path / "out", "shop/out")


@pytest.mark.ray
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: the extra ray")
def test_ray_works_on_a_bucket(stocked, tmp_path, model):
    _, _, folder = stocked
    run(folder, tmp_path / "out", model)
    run("s3://shop/in", "s3://shop/out", model, cluster=ray_executor.Cluster(2))
    check_as(tmp_path / "out", "shop/out")
