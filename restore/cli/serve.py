"""`restore serve`: the page and the HTTP API."""

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.model import Device, Dtype
from restore.errors import UsageError

EXTRA = {"fastapi", "uvicorn", "starlette", "python_multipart", "multipart"}


def serve(
    host: Annotated[
        str,
        typer.Option(help="Where it listens. Elsewhere than on this machine a token is needed."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
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

    The token, where one is needed, is that of RESTORE_TOKEN in the environment, else a new one.
    """
    try:
        from restore.web import api, serve
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        mend = "pip install 'restore-toolkit[ui]'"
        raise UsageError(f"serve needs {error.name}, which is missing; {mend}") from error
    limits = api.Limits(queue, upload * 2**20, megapixels)
    where = state or serve.own_state()
    serve.serve(serve.Serving(host, port, where, root or [], model or [], device, dtype, limits))
