"""A dataset for BasicSR's option files: `type: RecipePairs` in place of RealESRGANDataset and kin.

import degradations.basicsr
degradations.basicsr.register()  # in the script that calls basicsr.train.train_pipeline

datasets:
  train:
    name: photos
    type: RecipePairs
    dataroot_gt: photos
    recipe: realesrgan  # a name or a YAML file
    gt_size: 256
    seed: 0
    use_rot: true
    ...  # and what the loader takes, as for any dataset

A sample has lq and gt, float (3, h, w) in [0, 1], their paths, and `trace`, which replays on gt; on
gt_plain, where the recipe sharpens the target. Pair it with SRModel or any model that reads lq, gt.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from degradations import recipes
from degradations.errors import RecipeError, mend
from degradations.torch import PairDataset, files_in

_SIZE = re.compile(r"\s\(\d+,\s*\d+(,\s*\d+)?\)(\s+\d+)?\s*$")  # and how it is compressed
OURS = {"dataroot_gt", "meta_info", "recipe", "severity", "gt_size", "scale", "seed", "use_rot"}
OF_THE_LOADER = {
    *("name", "type", "phase", "num_worker_per_gpu", "batch_size_per_gpu", "use_shuffle"),
    *("dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue", "pin_memory"),
    *("persistent_workers",),
}


class RecipePairs(Dataset):
    """PairDataset with the options of a BasicSR option file; unknown options are refused.

    Args:
        opt: The dataset's section of the option file.

    Raises:
        RecipeError: If an option is unknown, or one that is needed is missing.
    """

    def __init__(self, opt: dict[str, Any]):
        for name in opt.keys() - OURS - OF_THE_LOADER:
            raise RecipeError(f"{name} is not an option of RecipePairs; {mend(name, OURS)}")
        for name in ("dataroot_gt", "recipe", "scale"):
            if name not in opt:
                raise RecipeError(f"RecipePairs needs {name}; add it to the dataset's options")
        turns = opt.get("use_rot", True)
        if not isinstance(turns, bool):
            raise RecipeError(f"use_rot is {turns!r}; give true or false, without quotes")
        self.opt, folder = opt, Path(opt["dataroot_gt"])
        listed = opt.get("meta_info")
        files = files_in(folder) if listed is None else _listed(Path(listed), folder)
        self.pairs = PairDataset(
            files,
            recipes.find(opt["recipe"]).at(opt.get("severity", 1)),
            opt["scale"],
            opt.get("seed", 0),
            crop=opt.get("gt_size", 256),
            turns=turns,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        made = self.pairs[which]
        path = str(self.pairs.photos[made["photo"]])
        sample = {"lq": made["lr"], "gt": made.get("hr_sharp", made["hr"]), "trace": made["trace"]}
        if "hr_sharp" in made:
            sample["gt_plain"] = made["hr"]
        return sample | {"lq_path": path, "gt_path": path}


def _listed(path: Path, folder: Path) -> list[Path]:
    """The files of a meta_info: a name a line, then perhaps its size, as in (480,480,3).

    Raises:
        RecipeError: If a file is missing, or the list cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    files = [folder / _SIZE.sub("", line).strip() for line in lines if line.strip()]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise RecipeError(
            f"{path}: {len(missing)} of {len(files)} files are not there, such as {missing[0]}; "
            "dataroot_gt is the folder that the names start from"
        )
    return files


def register() -> None:
    """Register RecipePairs with BasicSR, and let its sampler pass on the epoch.

    BasicSR's EnlargedSampler shuffles by epoch but passes on only the index, so a dataset would
    draw the same in every epoch. For RecipePairs, and only for it, the sampler now yields (index,
    epoch). Repeated visits to a picture within an epoch, which dataset_enlarge_ratio asks for,
    count as epochs too.
    """
    from basicsr.data.data_sampler import EnlargedSampler
    from basicsr.utils.registry import DATASET_REGISTRY

    if RecipePairs.__name__ in DATASET_REGISTRY:
        return
    DATASET_REGISTRY.register(RecipePairs)
    plain = EnlargedSampler.__iter__

    def telling(self: Any) -> Iterator[Any]:
        if not isinstance(self.dataset, RecipePairs):
            return plain(self)
        return _iterate_visits(self)

    EnlargedSampler.__iter__ = telling


def _iterate_visits(sampler: Any) -> Iterator[tuple[int, int]]:
    """The pictures that EnlargedSampler gives, in its order, each visit with a number."""
    import torch

    rng = torch.Generator().manual_seed(sampler.epoch)
    order = torch.randperm(sampler.total_size, generator=rng, device=rng.device)
    count = len(sampler.dataset)
    visits = math.ceil(sampler.total_size / count)
    for place in order[sampler.rank : sampler.total_size : sampler.num_replicas].tolist():
        yield place % count, sampler.epoch * visits + place // count
