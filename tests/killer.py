"""kill -9 so many processes that save checkpoints, or so many times a training run.

    python tests/killer.py save FOLDER KEEP KILLS    prints how many met a checkpoint half written
    python tests/killer.py train FOLDER CONFIG KILLS

A process of its own, without threads and before any gradient, so that it can fork.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from restore.training import checkpoint


def begun() -> checkpoint.State:
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    return checkpoint.State(model, list(model.parameters()), optimizer)


def save_for_ever(folder: Path, keep: int, state: checkpoint.State) -> None:
    for step in range(1, 10**6):
        checkpoint.save(folder, checkpoint.Progress(step), state, keep)


def kill_saving(folder: Path, keep: int, count: int) -> None:
    rng, torn, state = random.Random(keep), 0, begun()
    for number in range(count):
        place = folder / str(number)
        child = os.fork()
        if child == 0:
            save_for_ever(place, keep, state)
        while not list(place.glob("step_*")):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn += bool(list(place.glob(".step_*")))
        there = sorted(place.glob("step_*"))
        assert there and all(checkpoint.is_valid(path) for path in there[-keep:]), place
        checkpoint.sweep(place)
        assert checkpoint.latest(place) == there[-1]
    print(torn)


def kill_training(folder: Path, config: Path, count: int) -> None:
    """FOLDER/whole is trained without a stop, FOLDER/torn with so many kills."""
    from restore.training import loop  # here: it imports every stage

    rng = random.Random(0)

    def start(name: str) -> int:
        child = os.fork()
        if child == 0:
            loop.run(config, [f"output={folder / name}"])
            os._exit(0)
        return child

    assert os.waitpid(start("whole"), 0)[1] == 0
    for number in range(count):
        child, target = start("torn"), 9 * (number + 1)
        while not any(int(path.name[5:]) >= target for path in (folder / "torn").glob("step_*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert os.waitpid(start("torn"), 0)[1] == 0


if __name__ == "__main__":
    what, place, how, kills = sys.argv[1:]
    if what == "save":
        kill_saving(Path(place), int(how), int(kills))
    else:
        kill_training(Path(place), Path(how), int(kills))
