"""Which devices do a run's work, and the model as opened for them."""

from collections.abc import Sequence

from restore.batch.models import OpenedModel
from restore.errors import UsageError
from restore.options import WalkOptions


def parse_devices(devices: Sequence[str]) -> list[str]:
    """Devices as torch calls them: 0 is cuda:0.

    Raises:
        UsageError: There is none, or they are of several kinds, so that a result would depend on
            the device that made it.
    """
    found = [f"cuda:{name}" if name.isdecimal() else name for name in map(str.strip, devices)]
    if not found or not all(found):
        raise UsageError("--devices: name at least one, such as 0,1 or cpu,cpu")
    if len(kinds := {name.split(":")[0] for name in found}) > 1:
        problem = "pictures would depend on which of them took a file; name one kind"
        raise UsageError(f"--devices: {' and '.join(sorted(kinds))}: {problem}")
    return found


def open_on(model: OpenedModel, devices: Sequence[str], options: WalkOptions) -> OpenedModel:
    """The model as a run on one of these devices opens it, so that its results are the same.

    Raises:
        UsageError: `--device` names another kind, or only this process has the model.
        ModelError: This torch has no such device.
    """
    from restore.checkpoints import accelerators

    if model.pinned is None:
        raise UsageError(f"{model.name} was loaded by its caller, and is in this process alone")
    asked, kind = model.pinned.choice.device, parse_devices(devices)[0].split(":")[0]
    for name in parse_devices(devices):
        accelerators.find(name)
    if asked not in ("auto", kind):
        raise UsageError(f"--device {asked} and --devices {','.join(devices)}: give one of them")
    if asked == "auto" and accelerators.pick().split(":")[0] != kind:
        return model.pinned.on(kind).open(options)
    return model
