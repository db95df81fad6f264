"""A server of its own process, as a user starts it."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parents[1]


def started(state: Path, port: int, *more: object) -> subprocess.Popen:
    """`tools/serve.py`, once it answers."""
    words = ["tools/serve.py", "--port", str(port), "--state", str(state), *map(str, more)]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE)
    until = time.monotonic() + 200
    while time.monotonic() < until:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/health", timeout=1)
            return process
        except httpx2.TransportError:
            assert process.poll() is None
            time.sleep(0.1)
    process.kill()
    process.communicate()
    raise AssertionError("the server did not start")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
