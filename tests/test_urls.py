"""URLs: read where they are read, refused by name everywhere else, and never taken for a folder."""

import pytest
import typer

from restore import cli, file_search
from restore.batch import inputs, remote_listing
from restore.batch.destination import Destination
from restore.cli.here import URLS, WORDS
from restore.config import load_config, shipped
from restore.errors import ConfigError, UsageError
from restore.training.options import TrainOptions

GIVEN = "s3://bucket/things"


COMMAND = typer.main.get_command(cli.app)


def params(command=COMMAND, words=()):
    """(words of a command, the arguments before, one of its options) for all of them."""
    for name, below in getattr(command, "commands", {}).items():
        yield from params(below, (*words, name))
    if not hasattr(command, "commands"):
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        for param in command.params:
            before = arguments[: arguments.index(param)] if param in arguments else []
            yield words, ["x"] * len(before), param


def is_place(param) -> bool:
    kind = getattr(param, "type_descriptor", None) or getattr(param, "type", None)
    texts = f"{getattr(kind, 'annotation', '')} {kind}".replace("STRING", "str")  # older typers
    return "Path" in texts or ("str" in texts and param.name not in WORDS | {"overrides", "sets"})


PLACES = [found for found in params() if is_place(found[2])]


def test_all_options_with_places_are_met():
    named = {(words[0], one.name) for words, _, one in PLACES}
    assert {("upscale", "listed"), ("upscale", "damage"), ("inpaint", "mask")} <= named
    assert {("evaluate", "reference"), ("evaluate", "out"), ("report", "out")} <= named
    assert {("verify", "given"), ("serve", "root"), ("doctor", "out"), ("train", "config")} <= named


@pytest.mark.parametrize(
    ("words", "before", "param"),
    [pytest.param(*one, id=" ".join([*one[0], one[2].name])) for one in PLACES],
)
def test_a_url_is_read_or_refused(words, before, param):
    if param.name in URLS.get(words[0], set()):
        return  # tests/test_remote.py reads and writes there
    is_option = param.param_type_name == "option"
    given = [max(param.opts, key=len), GIVEN] if is_option else [*before, GIVEN]
    with pytest.raises(UsageError, match=f"{GIVEN}: takes a path of this machine"):
        COMMAND(args=[*words, *given], prog_name="restore", standalone_mode=False)


def test_the_command_line_refuses_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["upscale", "a.png", "-o", "out", "--damage", "s3://me:SECRET@b/masks"]) == 2
    said = capsys.readouterr().err
    assert "--damage s3://b/masks: takes a path of this machine" in said and "SECRET" not in said
    assert not list(tmp_path.iterdir())


def test_a_path_in_a_training_config_is_no_url(tmp_path):
    config = shipped()["train/nano_autoencoder"]
    with pytest.raises(ConfigError, match="output takes a path of this machine"):
        load_config(TrainOptions, config, ["output=s3://bucket/run", "stage.data.photos=/p"])
    with pytest.raises(ConfigError, match=r"photos.* takes a path of this machine"):
        load_config(TrainOptions, config, ["output=run", "stage.data.photos=s3://bucket/photos"])


def test_a_list_names_paths_and_urls(tmp_path):
    listed = [str(tmp_path / "a.png"), "s3://me:SECRET@bucket/in/b.png", "https://h/../c.png?sig=1"]
    found = inputs.find([], Destination(tmp_path / "out"), listed=listed)
    assert {file.key: file.url for file in found} == {
        (tmp_path / "a.png").relative_to(tmp_path.anchor).as_posix(): "",
        "bucket/in/b.png": listed[1],
        "h/c.png": listed[2],
    }
    assert not any("SECRET" in str(file.path) or "sig" in str(file.path) for file in found)


@pytest.mark.parametrize("given", ["http://h/../../x.png", "http://../x.png", "http://h//../..//x"])
def test_no_url_of_a_list_leads_out_of_the_output_folder(given):
    assert (
        ".." not in remote_listing.named(given).key.split("/") and remote_listing.named(given).key
    )


@pytest.mark.parametrize("data", [b"a b\nc\r\n\n\xff", b"a b\0c\0\0\xff\0", b"a b\0c\0\xff"])
def test_a_list_is_read_in_pieces_of_any_size(data, tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_bytes(data)
    for size in (1, 2, 3, 1000):
        monkeypatch.setattr(file_search, "BLOCK", size)
        with path.open("rb") as file:
            assert list(file_search.read_list(file)) == ["a b", "c", "\udcff"]
