"""`restore export`: a model written for ONNX Runtime."""

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.model import Offline
from restore.errors import printable


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As --model takes it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that is made.")],
    config_from: Annotated[
        str | None,
        typer.Option(help="A diffusers folder with configs for a single .safetensors file."),
    ] = None,
    offline: Offline = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read the tensors of .ckpt and .bin files too.")
    ] = False,
) -> None:
    """Write a model as ONNX files, for --engine onnx: it starts in a second, without torch."""
    from restore.batch import environment

    environment.require()
    from restore.checkpoints.export import export  # torch, seconds

    made = export(model, out, config=config_from, offline=offline, allow_pickle=allow_pickle)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    place = printable(str(made))
    print(f"{place}: {size / 1e6:.1f} MB; use it by --model {place} --engine onnx")
