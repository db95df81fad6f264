"""Functions run in worker processes: a crash, a hang or a memory bomb costs one call only.

Decoders are C code that reads untrusted files. They run here, each process with a memory limit and
each call with a time limit; a process that dies is replaced.
"""

import atexit
import math
import os
import pickle  # what crosses the pipe to a process of ours; never a file
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import LifoQueue
from types import ModuleType
from typing import Any, TypeVar

from restore.errors import ImageError

MEMORY = 3 * 2**30  # bytes a process may take beyond what it started with
TRIES = 2
LISTEN_S = 0.2
START_S = 60  # for a process to start, on a machine that is busy
SPAWN = get_context("spawn")  # a fork would take the model's memory and threads along
_HIDING = threading.Lock()

Result = TypeVar("Result")


class Workers:
    """A pool of processes that start when first needed; each serves one call at a time.

    Args:
        count: Number of processes.
        memory: Bytes that each may take beyond what it started with.
    """

    def __init__(self, count: int = 2, memory: int = MEMORY):
        self._memory = memory
        self._idle: LifoQueue[_Worker | None] = LifoQueue()  # the last one used: the others sleep
        for _ in range(count):
            self._idle.put(None)

    def call(self, limit_s: float, function: Callable[..., Result], *args: Any) -> Result:
        """Call function(*args) in a worker process; wait if all are busy.

        Args:
            limit_s: Seconds after which the process is killed.
            function: A top-level function of a module that is safe to import.
            *args: Its arguments. They and the result are pickled, arrays without a copy.

        Raises:
            ImageError: The process died on every try (code CRASHED or TIMEOUT), or the function
                needed more memory than it may have (OOM).
            Exception: Whatever the function raises.
        """
        died = None
        for _ in range(TRIES):
            worker = self._idle.get()
            try:
                worker = worker or _Worker(self._memory, function)
                return worker.call(limit_s, function, args)
            except _DiedError as error:
                died = error
            finally:
                self._idle.put(worker if worker and worker.is_alive else None)
        assert died
        raise died.error from died

    def close(self) -> None:
        """End the idle processes."""
        while not self._idle.empty():
            worker = self._idle.get()
            if worker:
                worker.kill()


def shared_workers() -> Workers:
    """Return the pool of this process; a fork has a pool of its own."""
    return _shared(os.getpid())


@contextmanager
def hidden_script() -> Iterator[None]:
    """Hide the running script from a process that starts: it would run the script once more, up to
    `if __name__ == "__main__"` or, where there is none, to its end.
    """
    with _HIDING:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


@cache
def _shared(pid: int) -> Workers:
    workers = Workers()
    atexit.register(workers.close)
    return workers


class _DiedError(Exception):
    def __init__(self, error: ImageError):
        super().__init__(str(error))
        self.error = error


class _Worker:
    """A process and the pipe to it.

    Args:
        memory: Bytes that it may take beyond what it started with.
        function: The first that it will serve: its modules are loaded before its time counts.
    """

    def __init__(self, memory: int, function: Callable[..., Any]):
        self.is_alive = True
        self._is_late = False
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs, memory, function), daemon=True)
        with hidden_script():
            self._process.start()
        theirs.close()
        self._answer(START_S)

    def call(self, limit_s: float, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        error, value = self._answer(limit_s, (limit_s, function, args))
        if error is not None:
            raise error
        return value

    def _answer(self, limit_s: float, question: object = None) -> Any:
        alarm = threading.Timer(limit_s, self._end)
        alarm.start()
        try:
            if question:
                _send(self._pipe, question)
            while not self._pipe.poll(LISTEN_S):  # Ctrl-C is heard between two of these
                pass
            return _receive(self._pipe)
        except (EOFError, OSError) as gone:
            self.kill()
            raise _DiedError(self._why(limit_s)) from gone
        except BaseException:  # such as Ctrl-C: the answer would be taken for that of the next call
            self.kill()
            raise
        finally:
            alarm.cancel()

    def _end(self) -> None:
        self._is_late = True
        self._process.kill()

    def _why(self, limit_s: float) -> ImageError:
        if self._is_late:
            mend = "try when the machine is less busy, or convert it elsewhere"
            return ImageError("TIMEOUT", f"took longer than {limit_s:.3g} s; {mend}")
        how = self._process.exitcode or 0
        ended = signal.Signals(-how).name if how < 0 else f"exit code {how}"
        return ImageError("CRASHED", f"its decoder or encoder died ({ended}); convert it elsewhere")

    def kill(self) -> None:
        self.is_alive = False
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, memory: int, function: Callable[..., Any]) -> None:
    """Answer calls until the pipe closes; unpickling `function` has loaded its modules."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to the whole group, meant for the caller
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # decoders print warnings of their own; what counts of them is answered
    _limit(memory)
    with suppress(EOFError, OSError):  # the caller is gone
        _send(pipe, "ready")
        while True:
            limit_s, function, args = _receive(pipe)
            _alarm(math.ceil(limit_s) + START_S)  # if the caller is gone and cannot end this
            try:
                answer = (None, function(*args))
            except MemoryError:
                reason = f"needs more than {memory >> 20} MiB; cut it into parts"
                answer = (ImageError("OOM", reason), None)
            except Exception as error:  # a decoder may raise anything; the caller raises it again
                answer = (_sendable(error), None)
            _alarm(0)
            del function, args
            _send(pipe, answer)
            del answer


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)


def _sendable(error: Exception) -> Exception:
    if not isinstance(error, ImageError):
        error.add_note(traceback.format_exc())  # where it was raised, which pickling forgets
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error's class runs code of its own here, and need not take it back
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _limit(memory: int) -> None:
    """Limit the growth of this process's address space to `memory` bytes."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    with suppress(OSError, ValueError):  # no /proc: not on Linux; or a lower limit stands already
        with open("/proc/self/statm", encoding="ascii") as file:
            base = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (base + memory, hard))


def _send(pipe: Connection, thing: Any) -> None:
    """Send a pickled object, then its arrays without a copy."""
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(thing, protocol=5, buffer_callback=arrays.append)
    raw = [array.raw() for array in arrays]
    pipe.send((head, [part.nbytes for part in raw]))
    for part in raw:
        if part.nbytes:
            pipe.send_bytes(part)


def _receive(pipe: Connection) -> Any:
    head, sizes = pipe.recv()
    arrays = []
    for size in sizes:
        array = bytearray(size)
        if size:
            pipe.recv_bytes_into(array)
        arrays.append(array)
    return pickle.loads(head, buffers=arrays)
