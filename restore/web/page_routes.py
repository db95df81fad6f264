"""Routes on the files of the web page."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_name("page")
PAGES = {
    **{".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"},
    **{".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"},
}


def add_page_routes(app: FastAPI) -> None:
    """Add the files of the web page; it loads nothing from elsewhere."""
    for path in sorted(PAGE.iterdir()):
        route = "/" if path.name == "index.html" else f"/page/{path.name}"
        app.api_route(route, methods=["GET", "HEAD"], include_in_schema=False)(serve_file(path))


def serve_file(path: Path) -> Callable[[], FileResponse]:
    """Make a route that answers with a file of the page."""

    def page() -> FileResponse:
        return FileResponse(path, media_type=PAGES[path.suffix])

    return page
