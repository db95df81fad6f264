"""Start of the server: token, state folder, socket, and the address that is printed."""

import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import uvicorn

from restore.batch.folder_lock import as_output_error
from restore.checkpoints.arguments import Engine
from restore.errors import OutputError, UsageError
from restore.files import home_folder, locked
from restore.web.adapters import Adapters
from restore.web.api import Limits, create_app
from restore.web.guard import Rules, host_name, is_loopback
from restore.web.models import Models
from restore.web.roots import Roots

TOKEN = "RESTORE_TOKEN"  # in the environment: others see a command's words
UPLOADS = 8  # bodies that are received at a time


@dataclass(frozen=True)
class Serving:
    """Options of the command `restore serve`.

    Attributes:
        host: Address to bind.
        port: Port to bind.
        names: Host names under which a proxy serves it.
        state: Folder for jobs.
        roots: Folders that clients may work on.
        models: Models that clients may name, beside those that ship.
        device: Device to load models on.
        dtype: Precision of the models.
        engine: Computes the networks: torch or onnx.
        limits: Limits of requests.
        loras: LoRAs and folders of them that clients may name.
        controlnets: ControlNets that clients may name.
    """

    host: str
    port: int
    names: Sequence[str]
    state: Path
    roots: Sequence[Path]
    models: Sequence[str]
    device: str
    dtype: str
    engine: Engine
    limits: Limits
    loras: Sequence[Path] = ()
    controlnets: Sequence[Path] = ()


def default_state_folder() -> Path:
    """Return the default folder for jobs."""
    return home_folder("state") / "serve"


def serve(how: Serving) -> None:
    """Serve until a signal ends the process.

    Raises:
        UsageError: An option is wrong, or the address is taken.
        OutputError: The state folder cannot be written or is in use.
    """
    for name in how.names:
        if not name.isascii() or host_name(name) != name.lower():
            mend = "give the host alone, as photos.example, without https://, port or path"
            raise UsageError(f"--name {name}: is no name of a host; {mend}")
    roots = Roots.of(how.roots)
    token = os.environ.get(TOKEN, "")
    if not re.fullmatch(r"[!-~]*", token):
        raise UsageError(f"{TOKEN}: take letters, digits and signs without spaces")
    if not token and (how.names or not is_loopback(how.host)):
        token = secrets.token_urlsafe(24)
    rules = Rules(
        how.host, token, how.limits.body, UPLOADS, frozenset(name.lower() for name in how.names)
    )
    adapters = Adapters.of(how.loras, how.controlnets)
    models = Models(how.models, how.device, how.dtype, how.engine, adapters)
    models.require_given()
    try:
        with as_output_error(how.state), locked(how.state), open_socket(how) as listener:
            app = create_app(how.state, rules, models, roots, how.limits)
            print(f"restore: open {build_url(how, token)}", flush=True)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # would hold the token of the first visit
                server_header=False,
                timeout_graceful_shutdown=3,
            )
            uvicorn.Server(config).run(sockets=[listener])
    except OutputError as error:
        error.args = (f"{error}; --state FOLDER keeps the jobs elsewhere",)
        raise


def open_socket(how: Serving) -> socket.socket:
    """Open a listening socket.

    Raises:
        UsageError: The address is taken, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in how.host else socket.AF_INET
    try:
        return socket.create_server((how.host.strip("[]"), how.port), family=family)
    except OSError as error:
        what = f"{how.host}:{how.port}: {error.strerror or error}"
        raise UsageError(f"{what}; give another --port or --host") from error


def build_url(how: Serving, token: str) -> str:
    """Build the URL that a user opens, with the token."""
    host = f"[{how.host}]" if ":" in how.host else how.host
    name = "localhost" if how.host in ("0.0.0.0", "::") else host
    if how.names:  # through a proxy, whose scheme and port are its own
        return f"https://{how.names[0]}/?token={quote(token, safe='')}"
    return f"http://{name}:{how.port}/" + (f"?token={quote(token, safe='')}" if token else "")
