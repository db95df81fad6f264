"""python tests/killer.py FOLDER KEEP COUNT: kill -9 so many processes that save checkpoints.

A process of its own, light and without threads, so that it can fork. Prints how many of the kills
met a checkpoint half written.
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


def main(folder: Path, keep: int, count: int) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
