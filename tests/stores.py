"""An object store on the loopback, and faults between it and whoever asks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

LATE_S = 3  # above the PATIENCE_S of a client here
PATIENCE_S = 1


class Faulty:
    """A WSGI application before another one.

    fault  (number of the request, method, path) -> 503: it never arrives; lost: it is done, and the
           answer is a 503; late: it is done, and the answer comes when nobody waits any more;
           403: it is refused; nothing: as it is.
    latency_s  that each request takes longer.
    busiest  the most requests that were there at a time.
    """

    def __init__(self, app: Callable):
        self.app, self.count, self.lock = app, 0, threading.Lock()
        self.fault: Callable[[int, str, str], str] = lambda number, method, path: ""
        self.seen: list[tuple[str, str]] = []
        self.latency_s, self.busy, self.busiest = 0.0, 0, 0

    def __call__(self, environ, start):
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            time.sleep(self.latency_s)
            return self.answer(environ, start)
        finally:
            with self.lock:
                self.busy -= 1

    def answer(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self.lock:
            self.count += 1
            number = self.count
            self.seen.append((method, path))
        what = self.fault(number, method, path)
        if what in ("lost", "late"):
            list(self.app(environ, lambda *given: None))
        if what == "late":
            time.sleep(LATE_S)
        if what == "403":
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"]
        if what:
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"]
        return self.app(environ, start)


@contextmanager
def served(patch: pytest.MonkeyPatch) -> Iterator[tuple[str, Faulty]]:
    """(its address, its faults), with an empty bucket `shop`, for this process and its children."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "KEYSECRET",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    import s3fs

    urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()  # of the test before
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("shop")
    try:
        yield address, app
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        s3fs.S3FileSystem.clear_instance_cache()
