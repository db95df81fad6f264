"""Start the server: what it takes from the environment, where it keeps jobs, what it prints."""

import os
import re
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from restore.batch.journal import as_output_error
from restore.errors import UsageError
from restore.files import held
from restore.web.api import Limits, application
from restore.web.guard import Rules, is_loopback
from restore.web.models import Models
from restore.web.roots import Roots

TOKEN = "RESTORE_TOKEN"  # in the environment: others see a command's words
UPLOADS = 8  # bodies that are received at a time


@dataclass(frozen=True)
class Serving:
    """How the server is started; each field is an option of the command."""

    host: str
    port: int
    names: Sequence[str]
    state: Path
    roots: Sequence[Path]
    models: Sequence[str]
    device: str
    dtype: str
    limits: Limits


def own_state() -> Path:
    """Where jobs are kept if nobody says where."""
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        data = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return data / "restore" / "serve"


def serve(how: Serving) -> None:
    """Serve until a signal comes. Raises UsageError or OutputError before that."""
    roots = Roots.of(how.roots)
    token = os.environ.get(TOKEN, "")
    if not re.fullmatch(r"[!-~]*", token):
        raise UsageError(f"{TOKEN}: take letters, digits and signs without spaces")
    if not token and (how.names or not is_loopback(how.host)):
        token = secrets.token_urlsafe(24)
    rules = Rules(
        how.host, token, how.limits.body, UPLOADS, frozenset(name.lower() for name in how.names)
    )
    models = Models(how.models, how.device, how.dtype)
    with as_output_error(how.state), held(how.state), listening(how) as listener:
        app = application(how.state, rules, models, roots, how.limits)
        print(f"restore: open {address(how, token)}", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # would hold the token of the first visit
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[listener])


def listening(how: Serving) -> socket.socket:
    """A socket at the address. Raises UsageError if it is taken, or none of this machine's."""
    family = socket.AF_INET6 if ":" in how.host else socket.AF_INET
    try:
        return socket.create_server((how.host.strip("[]"), how.port), family=family)
    except OSError as error:
        told = f"{how.host}:{how.port}: {error.strerror or error}"
        raise UsageError(f"{told}; give another --port or --host") from error


def address(how: Serving, token: str) -> str:
    """What a user opens."""
    host = f"[{how.host}]" if ":" in how.host else how.host
    name = "localhost" if how.host in ("0.0.0.0", "::") else host
    if how.names:  # through a proxy, whose scheme and port are its own
        return f"https://{how.names[0]}/?token={token}"
    return f"http://{name}:{how.port}/" + (f"?token={token}" if token else "")
