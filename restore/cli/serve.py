"""`restore serve`: the page and the HTTP API."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from restore.cli.model import Device, Dtype, Engine
from restore.errors import UsageError

EXTRA = ("fastapi", "uvicorn", "starlette", "python_multipart")


def serve(
    host: Annotated[
        str,
        typer.Option(help="Where it listens. Elsewhere than on this machine a token is needed."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name that a proxy gives it; a token is needed then."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that may be worked on from the page; may be given again."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model beside those of `restore models list`; may be given again."),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: Engine = "torch",
    state: Annotated[
        Path | None, typer.Option(help="Where jobs and their pictures are kept.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs that may wait.")] = 32,
    upload: Annotated[
        int, typer.Option(min=1, max=1024, help="MiB that a request may send.")
    ] = 256,
    megapixels: Annotated[
        int, typer.Option(min=1, max=100_000, help="The largest result that is made.")
    ] = 400,
) -> None:
    """Serve a page to look at before and after, and an HTTP API, on this machine.

    If a token is needed, it is read from the environment's RESTORE_TOKEN; without it a new one is
    made.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        mend = "pip install 'restore-toolkit[ui]'"
        raise UsageError(f"serve needs {', '.join(missing)}, which is missing; {mend}")
    from restore.web import api, serve

    limits = api.Limits(queue, upload * 2**20, megapixels)
    where = state or serve.default_state_folder()
    how = serve.Serving(
        host, port, name or [], where, root or [], model or [], device, dtype, engine, limits
    )
    serve.serve(how)
