"""python -m torch.distributed.run --nproc_per_node 2 tests/ranks.py CONFIG OVERRIDES...

Trains as `tools/train.py CONFIG key=value ...` does, once for each argument, which holds all values
of a run. Writes OUT/met_RANK.json: the sample numbers of each batch that this process met.
"""

import json
import os
import shlex
import sys
from pathlib import Path


def main(config: Path, *overrides: str) -> None:
    # here, since a process that only decodes pictures imports this file again
    from restore.config import load_config
    from restore.training import loop

    met: list[list[int]] = []
    feed = loop.Training.feed

    def noting(self, first, last):
        for part, numbers, batch in feed(self, first, last):
            met.append(numbers)
            yield part, numbers, batch

    out = load_config(loop.TrainOptions, config, overrides).output
    loop.Training.feed = noting
    try:
        loop.run(config, list(overrides))
    finally:
        loop.Training.feed = feed
    rank = os.environ.get("RANK", "alone")
    (out / f"met_{rank}.json").write_text(json.dumps(met))


if __name__ == "__main__":
    from accelerate import Accelerator

    # the runs share the processes' group, which the end of the first would take apart
    Accelerator.end_training = lambda self: None
    for run in sys.argv[2:]:
        main(Path(sys.argv[1]), *shlex.split(run))
