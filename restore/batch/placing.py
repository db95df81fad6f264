"""Which devices do a run's work, and what its model is then."""

from collections.abc import Sequence

from restore.batch.models import OpenedModel
from restore.errors import UsageError


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


def placed(model: OpenedModel, devices: Sequence[str]) -> OpenedModel:
    """The model as one run on one of these devices has it, so that results are the same.

    Raises UsageError if it was asked to be elsewhere, or cannot be opened by others.
    """
    from restore.checkpoints.load import pick_device

    if model.loading is None:
        raise UsageError(f"{model.name} was loaded by its caller, and is in this process alone")
    asked, kind = model.loading.device, named(devices)[0].split(":")[0]
    if asked not in ("auto", kind):
        raise UsageError(f"--device {asked} and --devices {','.join(devices)}: give one of them")
    if asked == "auto" and pick_device().split(":")[0] != kind:
        return model.loading.on(kind).open()
    return model
