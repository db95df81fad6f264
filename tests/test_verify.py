"""`restore verify` tells what is missing or changed, and changes nothing."""

import json
import shutil
from pathlib import Path

import pytest

from restore import cli, files
from restore.batch import report
from restore.batch.rows import read_rows
from restore.batch.store import output_folder
from restore.checkpoints import manifest, model_paths


def verify(capsys, *given):
    code = cli.main(["verify", *map(str, given)])
    said = capsys.readouterr()
    assert bool(said.err) == (code == 1), "what is wrong has a mend"
    return code, said.out


def test_each_fault_has_its_own_mend(tmp_path, capsys):
    for what, name, mend in (
        ("changed", "config.json", "take the model, checkpoint or record anew"),
        ("missing", "config.json", "take the model, checkpoint or record anew"),
        ("changed", "out", "a run leaves alone what was changed"),
        ("missing", "out", "is made by the same run again"),
    ):
        folder = tmp_path / f"{what} {name}"
        folder.mkdir()
        path = folder / "config.json"
        path.write_text("{}")
        if name == "out":
            row = {"key": "a", "status": "done", "output": path.name, "seconds": 1, "warnings": []}
            row["output_sha256"] = files.sha256(path)
            (folder / "report.jsonl").write_text(json.dumps(row) + "\n")
        else:
            manifest.write(folder)
        path.write_text("changed") if what == "changed" else path.unlink()
        assert cli.main(["verify", str(folder)]) == 1
        said = capsys.readouterr()
        assert f"{what} " in said.out and mend in said.err and said.err.count("\n") == 1


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_are_held_against_the_journal(restored, photo, tmp_path, capsys):
    for name in ("a.png", "b.png", "c.png"):
        photo(name, seed=ord(name[0]))
    assert restored()[0] == 0
    out = tmp_path / "out"
    code, said = verify(capsys, out)
    assert code == 0 and "3 results whole" in said and "3 sources whole" in said
    (out / "a.png").unlink()
    (out / "b.png").write_bytes((out / "b.png").read_bytes() + b"x")
    photo("c.png", seed=9)
    before = tree(out)
    code, said = verify(capsys, out)
    assert code == 1 and tree(out) == before
    for line in (f"missing result {out / 'a.png'}", f"changed result {out / 'b.png'}"):
        assert line in said
    assert f"changed source {tmp_path / 'in' / 'c.png'}" in said


def test_sources_that_moved_are_told_and_cost_nothing(restored, photo, tmp_path, capsys):
    photo("a.png")
    restored()
    shutil.rmtree(tmp_path / "in")
    code, said = verify(capsys, tmp_path / "out")
    assert code == 0 and "1 source moved" in said and "1 result whole" in said


def test_a_lost_report_is_made_up_for_by_its_copy(restored, photo, tmp_path, capsys):
    photo("a.png")
    restored()
    (tmp_path / "out" / "report.jsonl").unlink()
    assert verify(capsys, tmp_path / "out")[0] == 0


def test_names_that_lead_out_are_never_opened(restored, photo, tmp_path, capsys):
    photo("a.png")
    restored()
    report = tmp_path / "out" / "report.jsonl"
    row = json.loads(report.read_text()) | {"output": "../../etc/passwd"}
    report.write_text(json.dumps(row) + "\n")
    shutil.rmtree(tmp_path / "out" / ".restore")
    code, said = verify(capsys, tmp_path / "out")
    assert code == 0 and "1 result moved" in said


def test_pairs_are_made_again_from_their_traces(photo, pixels, tmp_path, capsys):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels(96, 96)).save(tmp_path / "photos" / "a.png")
    out = tmp_path / "pairs"
    words = ["degrade", "apply", tmp_path / "photos", "-r", "bsrgan", "-o", out, "--pairs", 3]
    assert cli.main([*map(str, words), "--crop", "64", "--workers", "0"]) == 0
    capsys.readouterr()
    code, said = verify(capsys, out)
    assert code == 0 and "3 pairs whole" in said
    shutil.copy(out / "lr" / "000000.png", out / "lr" / "000001.png")
    (out / "traces" / "000002.json").unlink()
    code, said = verify(capsys, out)
    assert code == 1 and "its trace makes another picture" in said
    assert f"missing pair {out / 'traces' / '000002.json'}" in said


def test_a_model_is_checked_file_by_file_and_loaded(tmp_path, capsys):
    nano = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    assert verify(capsys, nano) == (0, f"{nano}: {_files(nano)} files whole, 1 model whole\n")
    (nano / "unet" / "extra.safetensors").write_bytes(b"x")
    (nano / "notes.md").write_text("mine")
    with (nano / "vae" / "config.json").open("a") as file:
        file.write(" ")
    (nano / "README.md").unlink()
    code, said = verify(capsys, nano)
    assert code == 1
    assert f"changed file {nano / 'vae' / 'config.json'}" in said
    extra = nano / "unet" / "extra.safetensors"
    assert f"added file {extra} (is not in the manifest, and would be loaded)" in said
    assert f"missing file {nano / 'README.md'}" in said
    assert f"left over file {nano / 'notes.md'}" in said


def test_a_model_that_lost_its_list_is_told_so(tmp_path, capsys):
    nano = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    (nano / manifest.NAME).unlink()
    code, said = verify(capsys, nano)
    assert code == 1 and "[Errno" not in said
    assert f"missing file {nano / manifest.NAME} (the list of the model's files" in said


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*")) - 1


def test_checkpoints_are_held_against_their_lists(tmp_path, capsys):
    for step in (1, 2):
        folder = tmp_path / f"step_{step:08d}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        manifest.write(folder)
    assert verify(capsys, tmp_path)[0] == 0
    (tmp_path / "step_00000002" / "model.safetensors").write_bytes(b"weightz")
    code, said = verify(capsys, tmp_path)
    assert code == 1 and "step_00000002/model.safetensors" in said


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_what_is_neither_is_refused(tmp_path, capsys, make):
    make(tmp_path / "x")
    assert cli.main(["verify", str(tmp_path / "x")]) in (2, 3)


def test_a_result_that_was_named_is_verified_by_its_name_and_by_its_reports(
    call, photo, tmp_path, capsys
):
    assert call("upscale", photo("a.png"), "-s", 1, out="made/big.png")[0] == 0
    big, own = tmp_path / "made" / "big.png", tmp_path / "made" / ".restore" / "big.png"
    for given in (big, own):
        code, said = verify(capsys, given)
        assert code == 0 and "1 result whole" in said
    merged = report.merge([own], tmp_path / "merged")
    assert merged["done"] == 1
    [row] = read_rows(tmp_path / "merged" / "report.jsonl")
    assert (tmp_path / "merged" / row["output"]).samefile(big)
    big.unlink()
    for given in (big, own):
        code, said = verify(capsys, given)
        assert code == 1 and f"missing result {big}" in said


@pytest.mark.parametrize("inside", ["", ".restore", ".restore/a.png", ".restore/a.png/.restore"])
def test_reports_know_the_folder_of_their_results(tmp_path, inside, monkeypatch):
    assert output_folder(tmp_path / inside) == tmp_path
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / inside)
    assert output_folder(Path()).resolve() == tmp_path


def test_results_that_rename_kept_are_held_against_the_journal_too(call, photo, tmp_path, capsys):
    words = ("upscale", photo("a.png"), "-s", 1)
    out = tmp_path / "out"
    for more in ((), ("--seed", 1, "--exists", "rename"), ("--seed", 2, "--exists", "rename")):
        assert call(*words, *more)[0] == 0
    code, said = verify(capsys, out)
    assert code == 0 and "3 results whole, 1 source whole" in said
    (out / "a.png").write_bytes(b"no picture")
    (out / "a_1.png").unlink()
    code, said = verify(capsys, out)
    assert code == 1 and "1 result whole" in said
    assert f"changed result {out / 'a.png'}" in said
    assert f"missing result {out / 'a_1.png'}" in said
    assert call(*words, "--exists", "overwrite")[0] == 0  # replaces one of them
    assert f"missing result {out / 'a_1.png'}" in verify(capsys, out)[1]
    assert "changed" not in verify(capsys, out)[1]
