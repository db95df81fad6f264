"""The HTTP API: submit, watch, cancel and fetch jobs; and the files of the web page."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from degradations import RecipeError, catalogue
from degradations.recipes import named
from restore import file_search
from restore.batch.folder_lock import is_full
from restore.errors import DiskFullError, OutputError, RestoreError, UsageError
from restore.web import metrics, requests
from restore.web.guard import Guard, Rules, error_response
from restore.web.models import Models
from restore.web.page_routes import add_page_routes
from restore.web.parts import UPLOADS, require_form, require_json
from restore.web.result_routes import add_file_routes, add_view_routes
from restore.web.roots import Roots
from restore.web.server import REFUSALS, JobResponse, Limits, Server
from restore.web.store import ENDED, Store
from restore.web.tasks import Tasks
from restore.web.worker import Worker

log = logging.getLogger(__name__)
EVENT_S = 0.3  # between two checks of a job whose events a client reads
QUIET_S = 15  # then a job that waits is told again: proxies end what is silent for a minute
Images = Annotated[list[UploadFile], File(max_length=UPLOADS)]
Control = Annotated[
    UploadFile, File(description="What the ControlNet is shown, instead of the picture itself.")
]
Text = Annotated[str, Form(description="The request as JSON; see the schema named in the summary.")]
FORMS: list[tuple[str, Any, str]] = [
    ("upscale", requests.UpscaleRequest, "Enlarge or restore a picture."),
    ("inpaint", requests.InpaintRequest, "Fill what is white in the mask, or paint beyond."),
    ("img2img", requests.Img2imgRequest, "Make a picture anew from itself and words."),
    ("scratches", requests.ScratchesRequest, "A mask of what looks scratched."),
    ("sheet", requests.SheetRequest, "What a recipe does to pictures, on one sheet."),
    ("pairs", requests.PairsRequest, "Training pairs by a recipe, as a zip."),
    ("estimate", requests.EstimateRequest, "A recipe fitted to bad photos."),
]


def create_app(
    state: Path,
    rules: Rules,
    models: Models,
    roots: Roots,
    limits: Limits,
) -> Guard:
    """Create the server as an ASGI application; its worker runs from startup to shutdown.

    Args:
        state: Folder for jobs.
        rules: Which requests are accepted.
        models: Models that clients may name.
        roots: Folders that clients may work on.
        limits: Limits of requests.
    """
    kept = Store(state)
    tasks = Tasks(kept, models, roots, limits.most_pixels)
    worker = Worker(kept, tasks.carry_out, limits.jobs, tasks.prepare)
    server = Server(kept, worker, models, roots, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(
        title="restore-toolkit",
        description="Enlarge, restore, fill and make pictures. Options are the command line's.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    add_error_handlers(app)
    add_task_routes(app, server)
    add_job_routes(app, server)
    add_file_routes(app, server)
    add_view_routes(app, server)
    add_list_routes(app, server)
    add_page_routes(app)
    return Guard(app, rules, lambda: worker.is_full)


def add_error_handlers(app: FastAPI) -> None:
    """Answer all errors as {"code": ..., "error": ...}."""

    @app.exception_handler(RestoreError)
    def refused(request: Request, error: RestoreError) -> Response:
        statuses = {"MISSING": 404, "TOO_LARGE": 413, "FULL": 429, "DISK_FULL": 507, "OUTPUT": 507}
        refusal = error_response(statuses.get(error.code, 422), error.code, str(error))
        if error.code == "FULL":
            refusal.headers["Retry-After"] = "5"
        return refusal

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> Response:
        return error_response(422, "CONFIG", requests.format_errors(list(error.errors())))

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, OSError) and error.status_code == 400:
            return unkept(error.__cause__)
        codes = {404: "MISSING", 405: "METHOD", 408: "TIMEOUT", 413: "TOO_LARGE"}
        code = codes.get(error.status_code, "REQUEST")
        refusal = error_response(error.status_code, code, error.detail)
        refusal.headers.update(error.headers or {})
        return refusal

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:  # the server logs it
        text = f"{type(error).__name__}; the server's log has more"
        return error_response(500, "INTERNAL", text)


def unkept(error: OSError) -> Response:
    """Answer an upload that the folder for temporary files, where it waits, did not take."""
    log.error("an upload was not received: %s", error)
    if is_full(error):
        text = "no room left for uploads on the server's disk; make some, or set its TMPDIR"
        return error_response(507, DiskFullError.code, text)
    text = "the server's folder for temporary files takes no uploads; its log has more"
    return error_response(507, OutputError.code, text)


def add_task_routes(app: FastAPI, server: Server) -> None:
    """Add the routes that queue a job; they answer 202 and the job."""
    for name, kind, summary in FORMS:
        if name in ("sheet", "pairs", "estimate"):
            route, form = (
                multiple_upload_route(server, kind),
                require_form("image", several="image"),
            )
        else:
            route = single_upload_route(server, kind)
            form = require_form("image", "mask", "control_image")
        app.post(
            f"/v1/{name}",
            status_code=202,
            dependencies=[form],
            summary=f"{summary} `request` is a {kind.__name__}.",
            response_model=JobResponse,
            responses=REFUSALS,
            openapi_extra=document_request(kind),
            operation_id=name,
        )(route)

    json = {"status_code": 202, "responses": REFUSALS, "dependencies": [Depends(require_json)]}

    @app.post("/v1/text2img", operation_id="text2img", **json)
    def text2img(given: requests.Text2imgRequest) -> JobResponse:
        """Make pictures from words."""
        server.check_size((given.text2img.height, given.text2img.width), given.count)
        return server.queue(given, [])

    @app.post(
        "/v1/text2img/form",
        status_code=202,
        summary="As /v1/text2img, with a ControlNet's picture. `request` is a Text2imgRequest.",
        responses=REFUSALS,
        dependencies=[require_form("control_image")],
        openapi_extra=document_request(requests.Text2imgRequest),
        operation_id="text2img_form",
    )
    def text2img_form(control_image: Control, request: Text = "{}") -> JobResponse:
        given = requests.parse(requests.Text2imgRequest, request)
        server.check_size((given.text2img.height, given.text2img.width), given.count)
        return server.queue(given, [], control=control_image)

    @app.post("/v1/batch", operation_id="batch", **json)
    def batch(given: requests.BatchRequest) -> JobResponse:
        """Work on a folder of the server, as the command line does."""
        out = server.roots.find(given.root, given.out, is_new=True)
        folder = server.roots.find(given.root, given.folder)
        if out == folder:
            raise UsageError("request: out: is the folder of the pictures too; name another")
        with server.roots.hiding_paths():
            file_search.find([folder], out)
        return server.queue(given, [])


def single_upload_route(server: Server, kind: Any) -> Callable[..., JobResponse]:
    """Make the route of a request of class `kind` with one picture, and a mask if it takes one."""

    def route(
        image: Annotated[UploadFile, File()],
        request: Text = "{}",
        mask: Annotated[
            UploadFile | None, File(description="White is filled; damage, for upscale.")
        ] = None,
        control_image: Control | None = None,
    ) -> JobResponse:
        given = requests.parse(kind, request)
        if control_image and not isinstance(given, requests.TaskRequest):
            raise UsageError(f"{given.kind} takes no control_image")
        if isinstance(given, requests.InpaintRequest):
            extends = given.inpaint.aspect or any(given.inpaint.extend)
            if not mask and not extends:
                raise UsageError("inpaint needs a mask, or sides to extend")
        elif mask and not isinstance(given, requests.UpscaleRequest):
            raise UsageError(f"{given.kind} takes no mask")
        elif mask and given.find_scratches:
            raise UsageError("a mask gives the scratches, find_scratches looks for them")
        return server.queue(given, [image], mask, control_image)

    return route


def multiple_upload_route(server: Server, kind: Any) -> Callable[..., JobResponse]:
    """Make the route of a request of class `kind` with several pictures."""

    def route(image: Images, request: Text = "{}") -> JobResponse:
        given = requests.parse(kind, request)
        if isinstance(given, requests.RecipeRequest):
            try:
                named(given.recipe)
            except RecipeError as error:
                raise UsageError(f"request: recipe: {error}") from error
        return server.queue(given, image)

    return route


def document_request(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a form's JSON for OpenAPI, as FastAPI does not see it."""
    return {"x-request-schema": kind.model_json_schema()}


def add_job_routes(app: FastAPI, server: Server) -> None:
    """Add the routes on one job."""

    @app.get("/v1/jobs/{job_id}", responses=REFUSALS, operation_id="job")
    def job(job_id: str) -> JobResponse:
        """The state of a job."""
        return server.describe(server.find(job_id))

    @app.post("/v1/jobs/{job_id}/cancel", responses=REFUSALS, operation_id="cancel")
    def cancel(job_id: str) -> JobResponse:
        """Cancel a job: at once if it waits, within a second if it is running."""
        server.find(job_id)
        server.worker.cancel(job_id)
        return server.describe(server.find(job_id))

    @app.delete("/v1/jobs/{job_id}", status_code=204, responses=REFUSALS, operation_id="remove")
    def remove(job_id: str) -> Response:
        """Delete a job that has ended, and its files."""
        if server.find(job_id).status not in ENDED:
            raise UsageError("the job has not ended; cancel it first")
        server.store.drop(job_id)
        return Response(status_code=204)

    @app.get(
        "/v1/jobs/{job_id}/events",
        response_class=StreamingResponse,
        responses={**REFUSALS, 200: {"content": {"text/event-stream": {}}}},
        operation_id="events",
    )
    def events(job_id: str) -> StreamingResponse:
        """The job, again at each change and each 15 s, until it has ended: server-sent events."""
        server.find(job_id)
        return StreamingResponse(
            stream_changes(server, job_id),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # nginx would keep them back
        )


async def stream_changes(server: Server, job_id: str) -> AsyncIterator[str]:
    """Yield a job as a server-sent event at each change or QUIET_S, until it has ended."""
    last, sent_s = "", time.monotonic()
    while job := server.store.get(job_id):
        text, now = server.describe(job).model_dump_json(), time.monotonic()
        if text != last or now - sent_s > QUIET_S:
            last, sent_s = text, now
            yield f"data: {text}\n\n"
        if job.status in ENDED:
            return
        await asyncio.sleep(EVENT_S)


def add_list_routes(app: FastAPI, server: Server) -> None:
    """Add the routes on models, recipes, folders, limits and the server's state."""

    @app.get("/v1/models", operation_id="models")
    def models() -> list[dict[str, Any]]:
        """The models that a request may name."""
        return server.models.list_models()

    @app.get("/v1/adapters", operation_id="adapters")
    def adapters() -> dict[str, list[str]]:
        """The LoRAs and ControlNets that a request may name."""
        known = server.models.adapters
        return {"loras": [*known.list_loras()], "controlnets": [*known.list_controlnets()]}

    @app.get("/v1/recipes", operation_id="recipes")
    def recipes() -> list[dict[str, str]]:
        """The recipes of damage that a request may name."""
        return [{"name": one.name, "line": one.line} for one in catalogue.named_recipes()]

    @app.get("/v1/folders", responses=REFUSALS, operation_id="folders")
    def folders(
        root: Annotated[str, Query(max_length=200)] = "",
        folder: Annotated[str, Query(max_length=2000)] = "",
    ) -> dict[str, Any]:
        """The roots that the server was given; or what is in a folder of one."""
        if not root:
            return {"roots": list(server.roots.folders)}
        return server.roots.list_folder(root, folder)

    @app.get("/v1/limits", operation_id="limits")
    def limits() -> Limits:
        """Limits of the server: jobs that wait, bytes of a request, megapixels of a result."""
        return server.limits

    @app.head("/health", include_in_schema=False)  # as some monitors ask
    @app.get("/health", operation_id="health")
    def health(response: Response) -> dict[str, str]:
        """Whether the server does jobs."""
        if not server.worker.is_alive:
            response.status_code = 503
            return {"status": "the worker has ended; restart the server"}
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, operation_id="metrics")
    def measured() -> PlainTextResponse:
        """Metrics in Prometheus' text format."""
        text = metrics.render(server.store, server.worker)
        return PlainTextResponse(text, media_type=metrics.TYPE)
