"""python -m torch.distributed.run --nproc_per_node 2 tests/ranks.py CONFIG: which samples it met.

Trains as `tools/train.py CONFIG` does, and writes OUT/met_RANK.json.
"""

import json
import os
import sys
from pathlib import Path

from restore.config import load_config
from restore.training import loop
from restore.training.data.loading import Rows

met: list[list[int]] = []
rows = Rows.__iter__


def noting(self):
    for numbers in rows(self):
        met.append(numbers)
        yield numbers


def main(config: Path, *overrides: str) -> None:
    Rows.__iter__ = noting
    out = load_config(loop.TrainOptions, config, overrides).output
    loop.run(config, list(overrides))
    rank = os.environ.get("RANK", "alone")
    (out / f"met_{rank}.json").write_text(json.dumps(met))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
