"""What an interpreter does while somebody watches: imports, sockets, processes, evil files."""

import contextlib
import sys

WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
WATCHED += ("os.posix_spawn", "os.fork", "webbrowser.open")
seen: list[tuple] = []
known: list[set[str]] = []  # modules, while somebody watches


def watch(event, args):
    if not known:
        return
    if event in WATCHED or (event == "import" and args[0] not in known[0]):
        seen.append((event, str(args)[:200]))
    if event == "open" and isinstance(args[0], str) and "evil" in args[0]:
        seen.append((event, args[0]))


sys.addaudithook(watch)


@contextlib.contextmanager
def watched():
    """What happens in the block, of what must not; what is lazily loaded by then is no matter."""
    seen.clear()
    known.append(set(sys.modules))
    try:
        yield seen
    finally:
        known.clear()
