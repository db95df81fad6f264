"""End a run at each of its calls to the file system, in every way, one after another.

    python tests/sweeper.py WHAT HOW FOLDER [STEP]    prints how many calls met their end

WHAT: a name in tests/swept.py. HOW: kill; EIO or ENOSPC, once; full, no room from that call on.
Each time over an empty output folder, and over older results. Then the same run once more,
undisturbed: nothing may be wrong, torn, left over or lost. A process of its own, without threads,
so that it can fork.
"""

import builtins
import contextlib
import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from swept import SWEPT, Swept, stand_in

from restore.files import TEMPORARY

EVENTS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.rmdir", "os.link"),
    *("os.truncate", "os.scandir", "os.listdir", "os.utime", "os.symlink", "fcntl.flock"),
}
GROWS = {"os.mkdir", "os.link", "os.symlink"}
MOST = 20  # faults that are told of
MET = 100  # is added to the exit code of a child that met its end
Meet = Callable[..., None]
watchers: list[Meet] = []  # called at each call, while a run is disturbed


def watch(event: str, args: tuple) -> None:
    if event in EVENTS:
        for meet in watchers:
            grows = event in GROWS or (event == "open" and bool((args[2] or 0) & os.O_CREAT))
            meet(grows, what=event)


class Torn(io.FileIO):
    """A file of which a write may do half of its work."""

    def write(self, data) -> int:
        whole = memoryview(data).cast("B")
        for meet in watchers:
            meet(True, lambda: super(Torn, self).write(whole[: len(whole) // 2]))
        return super().write(whole)


def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *more, **named):
    """As `open`, but what is written goes through `Torn`."""
    if not set(mode) & set("wax+"):
        return REAL_OPEN(file, mode, buffering, encoding, errors, newline, *more, **named)
    raw = Torn(file, mode.replace("b", "").replace("t", ""), *more, **named)
    if not buffering:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


REAL_OPEN, REAL_FSYNC = io.open, os.fsync


def fsync(handle: int) -> None:
    for meet in watchers:
        meet(False)
    REAL_FSYNC(handle)


def ending(how: str, nth: int, met: list[bool]) -> Meet:
    """What ends a run at its call number `nth`; it then puts something into `met`."""
    left = nth

    def meet(grows: bool, tear: Callable[[], object] = lambda: None, what: str = "") -> None:
        nonlocal left
        if how == "full" and not grows:
            return
        left -= 1
        if left == 0 or (left < 0 and how == "full"):
            if not met:
                met.append(True)
                os.write(2, f"[met {what}]\n".encode())
                tear()
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            number = errno.EIO if how == "EIO" else errno.ENOSPC
            raise OSError(number, os.strerror(number))

    return meet


def disturbed(run: Callable[[], int], how: str, nth: int, said: Path) -> int | None:
    """Run in a child that meets its end at call number `nth`; None if there are fewer calls.

    Args:
        said: Gets what the child prints.

    Returns:
        Its exit code, negative for a signal.
    """
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code - MET if code >= MET else code if code < 0 else None
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    builtins.open = io.open = opened
    os.fsync = fsync
    met: list[bool] = []
    watchers.append(ending(how, nth, met))
    try:
        code = run()
    except BaseException:
        watchers.clear()
        sys.excepthook(*sys.exc_info())
        code = 9
    watchers.clear()
    sys.stderr.flush()
    os._exit(code + MET * bool(met))


def check_at_once(swept: Swept, code: int, how: str, places: dict[str, Path]) -> None:
    """What is to hold after the end of a run, before the next one."""
    said = places["said"].read_text(errors="replace")
    assert "Traceback" not in said and "Error(" not in said, said
    assert code == -signal.SIGKILL if how == "kill" else code in (0, 1, 3), (code, said)
    if code in (1, 3) and code != swept.code:
        assert any(word in said for word in swept.complaints), said
    held = swept.results(places["out"])
    known = [swept.results(places[name]) for name in ("older", "fresh")]
    for name, data in held.items():
        assert any(one.get(name) == data for one in known), f"{name} is torn"
    if how in ("EIO", "ENOSPC") and "[met os.remove]" not in said:  # what can be removed, is
        left = list(places["out"].rglob(f"{TEMPORARY}*"))
        assert not left, left
    swept.check_rows(places["out"], code)


@contextlib.contextmanager
def silent():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def sweep(swept: Swept, how: str, folder: Path, step: int) -> int:
    places = {name: folder / name for name in ("in", "older", "fresh", "out", "said")}
    swept.prepare(places["in"])
    with silent():
        codes = [
            swept.run(places["in"], places[name], name == "older")  # what is imported once, is
            for name in ("older", "fresh")
        ]
    assert codes == [swept.code, swept.code], codes
    whole = swept.contents(places["fresh"])
    out, calls, faults = places["out"], 0, []
    run = partial(swept.run, places["in"], out, False)
    for older in (None, places["older"]):
        nth = 1
        while True:
            shutil.rmtree(out, ignore_errors=True)
            if older:
                shutil.copytree(older, out)
            code = disturbed(run, how, nth, places["said"])
            if code is None:
                break
            try:
                check_at_once(swept, code, how, places)
                with silent() as said:
                    again = run()
                assert again == swept.code, said.getvalue()
                now = swept.contents(out)
                assert now == whole, {
                    name for name in now | whole if now.get(name) != whole.get(name)
                }
                assert not list(out.rglob(f"{TEMPORARY}*")), "something is left in the making"
            except AssertionError as error:
                faults.append(f"{how} at call {nth} over {older and older.name}: {error}")
                assert len(faults) < MOST, "\n".join(faults)
            nth += step
            calls += 1
    assert not faults, "\n".join(faults)
    return calls


if __name__ == "__main__":
    what, how, place, *step = sys.argv[1:]
    stand_in()
    sys.addaudithook(watch)
    print(sweep(SWEPT[what], how, Path(place), int(step[0]) if step else 1))
