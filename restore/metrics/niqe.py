"""NIQE: how natural a picture looks, without its original, by the code of basicsr.

It ranks noise above truth in places (a network that keeps the noise wins it): never judge by it
alone.
"""

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np

BLOCK = 96  # px, the side of what it looks at; it needs two to tell how they vary
MEND = (
    "needs basicsr, on Python below 3.13: pip install setuptools wheel cython && "
    "pip install --no-build-isolation --no-deps basicsr==1.4.2"
)


def niqe_absent() -> str:
    """Why it cannot be measured here, and the mend; empty if it can."""
    return "" if importlib.util.find_spec("basicsr") else MEND


def niqe(luma: np.ndarray) -> float:
    """Natural image quality (Mittal et al. 2013) of BT.601 luma (H, W); lower is more natural.

    Rounded first, as MATLAB's is. NaN for a picture of fewer than two blocks of 96 pixels, or one
    that is flat.
    """
    blocks = (luma.shape[0] // BLOCK) * (luma.shape[1] // BLOCK)
    if blocks < 2:
        return math.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of blocks without texture
        try:
            return float(np.squeeze(_judge()(luma.round().astype(np.float32))))
        except np.linalg.LinAlgError:
            return math.nan


@contextmanager
def standing_in(stands: dict[str, ModuleType]) -> Iterator[None]:
    """These modules under their names for a while.

    What is imported meanwhile stays, as it would not under `patch.dict`: numpy's extensions refuse
    to be loaded a second time.
    """
    before = {name: sys.modules.get(name) for name in stands}
    sys.modules.update(stands)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@cache
def _judge() -> Callable[[np.ndarray], np.ndarray]:
    """basicsr's, with its statistics of natural pictures.

    Its packages import what needs an old torchvision, so bare modules stand in for them.
    """
    found = importlib.util.find_spec("basicsr")
    assert found and found.submodule_search_locations  # niqe_absent() was asked
    place = Path(found.submodule_search_locations[0])
    stands = {"basicsr": ModuleType("basicsr")}
    for part in ("utils", "metrics"):
        stands[f"basicsr.{part}"] = ModuleType(f"basicsr.{part}")
        stands[f"basicsr.{part}"].__path__ = [str(place / part)]
    stands["basicsr"].__path__ = [str(place)]
    stands["basicsr.utils"].bgr2ycbcr = None  # the luma is made here
    with standing_in(stands), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old names of scipy's
        theirs = importlib.import_module("basicsr.metrics.niqe")
    known = np.load(place / "metrics" / "niqe_pris_params.npz")
    return partial(
        theirs.niqe,
        mu_pris_param=known["mu_pris_param"],
        cov_pris_param=known["cov_pris_param"],
        gaussian_window=known["gaussian_window"],
    )
