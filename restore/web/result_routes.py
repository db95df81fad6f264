"""Routes on what a job makes: its files, its preview, copies to look at, and its report."""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response
from fastapi.responses import FileResponse, HTMLResponse

from restore.web import requests
from restore.web.server import REFUSALS, MissingError, Server

# Reports contain strangers' file names: scripts in them reach neither this server nor others.
REPORT = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "sandbox allow-scripts"
)
TYPES = {
    **{".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".avif": "image/avif"},
    **{".tif": "image/tiff", ".zip": "application/zip", ".yaml": "application/yaml"},
}


def add_file_routes(app: FastAPI, server: Server) -> None:
    """Add the routes on the files that a job made."""

    @app.head("/v1/jobs/{job_id}/result", include_in_schema=False)  # a downloader asks its size
    @app.get(
        "/v1/jobs/{job_id}/result",
        response_class=Response,
        responses={**REFUSALS, 200: {"content": {"application/octet-stream": {}}}},
        operation_id="result",
    )
    def result(job_id: str, name: Annotated[str, Query(max_length=300)] = "") -> Response:
        """A file that the job made, byte for byte as the command line writes it.

        Without `name`, the first.
        """
        found = server.find(job_id)
        names = [one.name for one in found.results]
        if not names or (name and name not in names):
            raise MissingError(f"the job has no result {name!r}; there are {', '.join(names)}")
        path = require(server.store.folder_of(job_id) / "out" / (name or names[0]))
        if path.suffix == ".html":  # a page of ours, with the photos' names in it
            return HTMLResponse(path.read_bytes(), headers={"Content-Security-Policy": REPORT})
        kind = TYPES.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=kind, filename=path.name)

    @app.get(
        "/v1/jobs/{job_id}/report",
        response_class=HTMLResponse,
        responses=REFUSALS,
        operation_id="report",
    )
    def report(job_id: str) -> Response:
        """The report of a run over a folder, as a page."""
        found = server.find(job_id)
        if not isinstance(found.request, requests.BatchRequest):
            raise MissingError("only a run over a folder has a report")
        path = server.roots.find(found.request.root, found.request.out, is_new=True) / "report.html"
        if path.is_symlink() or not path.is_file():
            raise MissingError("the run has written no report yet")
        return HTMLResponse(path.read_bytes(), headers={"Content-Security-Policy": REPORT})


def add_view_routes(app: FastAPI, server: Server) -> None:
    """Add the routes on pictures to look at: the unfinished result, before and after."""

    @app.get(
        "/v1/jobs/{job_id}/preview",
        response_class=Response,
        responses={
            **REFUSALS,
            200: {"content": {"image/jpeg": {}}},
            204: {"description": "There is none yet, or the job is not at work."},
        },
        operation_id="preview",
    )
    def preview(job_id: str) -> Response:
        """The unfinished result as a small JPEG, while the job is at work.

        Previews are made only while someone asks: ask again every few seconds, or when `preview`
        of the job has changed.
        """
        server.find(job_id)
        jpeg = server.worker.previews.ask(job_id)
        return Response(jpeg, media_type="image/jpeg") if jpeg else Response(status_code=204)

    @app.get(
        "/v1/jobs/{job_id}/view/{name}",
        response_class=Response,
        responses={**REFUSALS, 200: {"content": {"image/jpeg": {}}}},
        operation_id="view",
    )
    def view(job_id: str, name: str) -> Response:
        """`before` or `after` as a JPEG of at most 4096 px a side, to look at."""
        if name not in server.find(job_id).views:
            raise MissingError("there is no such view")
        path = require(server.store.folder_of(job_id) / "view" / f"{name}.jpg")
        return FileResponse(path, media_type="image/jpeg")


def require(path: Path) -> Path:
    """Return the path. Raises MissingError if the file was deleted."""
    if not path.is_file():
        raise MissingError(f"{path.name} is gone: it was deleted on the server; make it again")
    return path
