"""Small networks with random weights, of the architectures that people share."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from restore.checkpoints import pixel


def kinds() -> dict[str, Callable[[], nn.Module]]:
    """What builds each, by name: spandrel's own classes. Without it the test is skipped."""
    if find_spec("spandrel") is None:
        pytest.skip("the extra pixel is not installed")
    pixel.import_spandrel()
    from spandrel.architectures import (
        DAT,
        ESRGAN,
        HAT,
        PLKSR,
        RCAN,
        SPAN,
        Compact,
        DnCNN,
        DRUNet,
        OmniSR,
        SwinIR,
    )

    return {
        "RRDBNet": lambda: ESRGAN.ESRGAN(num_filters=8, num_blocks=2, scale=4),
        "SRVGGNetCompact": lambda: Compact.Compact(num_feat=8, num_conv=8, upscale=4),
        "SPAN": lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=12, upscale=2),
        "SwinIR": lambda: SwinIR.SwinIR(
            upscale=2,
            window_size=8,
            depths=[2],  # the second block shifts its windows
            embed_dim=12,
            num_heads=[2],
            mlp_ratio=2,
            upsampler="nearest+conv",
        ),
        "DAT": lambda: DAT.DAT(
            embed_dim=64,  # with less its position bias has no channels
            split_size=[8, 16],
            depth=[3],  # the third block shifts its windows
            num_heads=[2],
            expansion_factor=2,
            upscale=2,
        ),
        "HAT": lambda: HAT.HAT(
            embed_dim=12,
            depths=(2,),
            num_heads=(2,),
            window_size=16,
            upscale=2,
            mlp_ratio=2,
            squeeze_factor=4,
        ),
        "PLKSR": lambda: PLKSR.PLKSR(dim=16, n_blocks=3, upscaling_factor=2),
        "RealPLKSR": lambda: PLKSR.RealPLKSR(dim=16, n_blocks=2, upscaling_factor=2),
        "RCAN": lambda: RCAN.RCAN(n_resgroups=1, n_resblocks=1, n_feats=16, scale=2),
        "OmniSR": lambda: OmniSR.OmniSR(num_feat=8, block_num=1, res_num=2, up_scale=2),
        "DnCNN": lambda: DnCNN.DnCNN(in_nc=1, out_nc=1, nc=8, nb=5, act_mode="BR"),
        "DRUNet": lambda: DRUNet.DRUNet(in_nc=4, out_nc=3, nc=[4, 8, 12, 16], nb=2),
    }


CONVOLUTIONAL = ("RRDBNet", "SRVGGNetCompact", "SPAN", "PLKSR")
EIGHT = (*CONVOLUTIONAL, "SwinIR", "DAT", "HAT", "RealPLKSR", "OmniSR")


def network(kind: str, seed: int = 0) -> nn.Module:
    """Untrained, the same for the same seed."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on how they are built
        return kinds()[kind]().eval()


def save(folder: Path, kind: str, suffix: str = ".safetensors", **metadata: str) -> Path:
    """A file of a random network, as people share it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}{suffix}"
    state = {name: part.clone().contiguous() for name, part in network(kind).state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path, {"format": "pt", **metadata})
    else:
        torch.save({"params_ema": state}, path)
    return path
