"""`restore serve`: the page and the HTTP API."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from restore.cli.folder import takes
from restore.cli.model import Device, Dtype, Engine
from restore.errors import UsageError

EXTRA = ("fastapi", "uvicorn", "starlette", "python_multipart")


@dataclass(frozen=True)
class Address:
    """The options for where the server is reached; each field is an option."""

    host: Annotated[
        str,
        typer.Option(help="Where it listens. Elsewhere than on this machine a token is needed."),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name that a proxy gives it; a token is needed then."),
    ] = None


@dataclass(frozen=True)
class Offer:
    """The options for what clients may use, and what computes it; each field is an option."""

    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that may be worked on from the page; may be given again."),
    ] = None
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model beside those of `restore models list`; may be given again."),
    ] = None
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            help="A LoRA, or a folder of them, to choose from beside those of the folder loras "
            "where `restore models` keeps its own; may be given again."
        ),
    ] = None
    controlnet: Annotated[
        list[Path] | None,
        typer.Option(
            help="FOLDER of a ControlNet to choose, beside those of the folder controlnets there; "
            "may be given again."
        ),
    ] = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    engine: Engine = "torch"


@dataclass(frozen=True)
class Jobs:
    """The options for where jobs are kept and how large they may be; each field is an option."""

    state: Annotated[Path | None, typer.Option(help="Where jobs and their pictures are kept.")] = (
        None
    )
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs that may wait.")] = 32
    upload: Annotated[int, typer.Option(min=1, max=1024, help="MiB that a request may send.")] = 256
    megapixels: Annotated[
        int, typer.Option(min=1, max=100_000, help="The largest result that is made.")
    ] = 400


@takes("jobs", Jobs)
@takes("offer", Offer)
@takes("address", Address)
def serve(address: Address, offer: Offer, jobs: Jobs) -> None:
    """Serve a page to look at before and after, and an HTTP API, on this machine.

    If a token is needed, it is read from the environment's RESTORE_TOKEN; without it a new one is
    made.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        mend = "pip install 'restore-toolkit[ui]'"
        raise UsageError(f"serve needs {', '.join(missing)}, which is missing; {mend}")
    from restore.web import api, serve

    options = serve.Serving(
        host=address.host,
        port=address.port,
        names=address.name or [],
        state=jobs.state or serve.default_state_folder(),
        roots=offer.root or [],
        models=offer.model or [],
        loras=offer.lora or [],
        controlnets=offer.controlnet or [],
        device=offer.device,
        dtype=offer.dtype,
        engine=offer.engine,
        limits=api.Limits(jobs.queue, jobs.upload * 2**20, jobs.megapixels),
    )
    serve.serve(options)
