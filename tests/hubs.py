"""A hub on loopback that serves folders, and counts what it gave of each file."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


@contextmanager
def serving(top: Path) -> Iterator[tuple[str, Counter[str]]]:
    """Repositories org/NAME are the folders of `top`: (address, bytes given by file's path)."""
    given: Counter[str] = Counter()

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(has_body=False)

        def do_GET(self) -> None:
            self.answer(has_body=True)

        def answer(self, has_body: bool) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/org/([^/]+)(/revision/[^/]+)?", path):
                return self.send(json.dumps({"id": f"org/{found[1]}", "sha": COMMIT}), has_body)
            if found := re.fullmatch(r"/api/models/org/([^/]+)/tree/[^/]+/?", path):
                return self.send(json.dumps(self.tree(top / found[1])), has_body)
            found = re.fullmatch(r"/org/([^/]+)/resolve/[^/]+/(.*)", path)
            file = top / found[1] / found[2] if found else None
            if not (found and file.is_file()):
                return self.send("", has_body, 404)
            if has_body:
                given[found[2]] += file.stat().st_size
            return self.send(file.read_bytes(), has_body)

        def tree(self, folder: Path) -> list[dict]:
            return [
                {
                    "type": "file",
                    "path": file.relative_to(folder).as_posix(),
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            ]

        def send(self, body: str | bytes, has_body: bool, code: int = 200) -> None:
            data = body.encode() if isinstance(body, str) else body
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.end_headers()
            if has_body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
