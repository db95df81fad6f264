"""NIQE: naturalness of a picture without its original, computed by basicsr.

Never judge by it alone: in places it ranks noise above the truth, so a network that keeps the noise
wins.
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


def explain_niqe_absence() -> str:
    """Say why NIQE cannot be computed here, and how to mend that; "" if it can."""
    return "" if importlib.util.find_spec("basicsr") else MEND


def niqe(luma: np.ndarray) -> float:
    """Natural image quality (Mittal et al. 2013); lower is more natural.

    Args:
        luma: BT.601 luma (H, W), 16 to 235. It is rounded first, as in MATLAB.

    Returns:
        The score; NaN for a flat picture, or one of fewer than two blocks of 96x96 pixels.
    """
    blocks = (luma.shape[0] // BLOCK) * (luma.shape[1] // BLOCK)
    if blocks < 2:
        return math.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of blocks without texture
        try:
            return float(np.squeeze(_load_niqe()(luma.round().astype(np.float32))))
        except np.linalg.LinAlgError:
            return math.nan


@contextmanager
def substitute_modules(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Put modules into sys.modules under these names while the block runs.

    Unlike `patch.dict`, this keeps what is imported meanwhile: numpy's extensions cannot be loaded
    a second time.
    """
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@cache
def _load_niqe() -> Callable[[np.ndarray], np.ndarray]:
    """Load basicsr's function, with its statistics of natural pictures.

    Its packages import code that needs an old torchvision, so empty modules replace them.
    """
    found = importlib.util.find_spec("basicsr")
    assert found and found.submodule_search_locations  # explain_niqe_absence() returned ""
    folder = Path(found.submodule_search_locations[0])
    modules = {"basicsr": ModuleType("basicsr")}
    for part in ("utils", "metrics"):
        modules[f"basicsr.{part}"] = ModuleType(f"basicsr.{part}")
        modules[f"basicsr.{part}"].__path__ = [str(folder / part)]
    modules["basicsr"].__path__ = [str(folder)]
    modules["basicsr.utils"].bgr2ycbcr = None  # the luma is made here
    with substitute_modules(modules), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old names of scipy's
        theirs = importlib.import_module("basicsr.metrics.niqe")
    parameters = np.load(folder / "metrics" / "niqe_pris_params.npz")
    return partial(
        theirs.niqe,
        mu_pris_param=parameters["mu_pris_param"],
        cov_pris_param=parameters["cov_pris_param"],
        gaussian_window=parameters["gaussian_window"],
    )
