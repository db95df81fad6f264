"""How a model is loaded: what a worker elsewhere is told instead of its weights."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from restore.errors import ModelError, RestoreError, UsageError, printable

if TYPE_CHECKING:
    from restore.tasks.run import Model


@dataclass(frozen=True)
class Loading:
    """A model's name or place, and where it computes.

    digest  of the weights that the run began with; others are refused. Empty: not asked.
    loras   (file, scale) of each.
    """

    name: str
    device: str = "auto"
    dtype: str = "auto"
    digest: str = ""
    config: str | None = None
    compiled: bool = False
    offload: bool = False
    offline: bool = True
    allow_pickle: bool = False
    loras: tuple[tuple[str, float], ...] = ()

    def on(self, device: str) -> "Loading":
        return replace(self, device=device)

    def __call__(self) -> "Model":
        """Raises ModelError."""
        from restore.checkpoints.devices import load
        from restore.diffusion import torchvision

        if told := torchvision.complaint():
            print(f"restore: {printable(told)}", file=sys.stderr)
        names = ("config", "compiled", "offload", "offline", "allow_pickle")
        more = {name: getattr(self, name) for name in names} | {"loras": list(self.loras)}
        try:
            made = load(self.name, self.device, self.dtype, **more)
        except (RestoreError, MemoryError):
            raise
        except Exception as error:  # else every file would try the same again
            told = f"{self.name}: cannot be loaded: {type(error).__name__}: {error}"
            raise ModelError(told) from error
        if self.digest and getattr(made, "digest", "") not in ("", self.digest):
            raise ModelError(f"{self.name}: changed since the run began; run it again")
        return made


def named(devices: Sequence[str]) -> list[str]:
    """Devices as torch calls them: 0 is cuda:0.

    Raises UsageError if there is none, or if they are of several kinds: what a file becomes would
    depend on who took it.
    """
    found = [f"cuda:{name}" if name.isdecimal() else name for name in map(str.strip, devices)]
    if not found or not all(found):
        raise UsageError("--devices: name at least one, such as 0,1 or cpu,cpu")
    if len(kinds := {name.split(":")[0] for name in found}) > 1:
        told = "pictures would depend on which of them took a file; name one kind"
        raise UsageError(f"--devices: {' and '.join(sorted(kinds))}: {told}")
    return found


def kind_of(devices: Sequence[str], asked: str) -> str:
    """What `--device` says where these devices do the work of one, so that results are the same.

    asked  what it says already; auto stays, where it means these.
    """
    kind = named(devices)[0].split(":")[0]
    if asked not in ("auto", kind):
        raise UsageError(f"--device {asked} and --devices {','.join(devices)}: give one of them")
    if asked == "auto":
        from restore.checkpoints.load import pick_device

        return "auto" if pick_device().split(":")[0] == kind else kind
    return asked
