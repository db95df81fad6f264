"""LoRAs and ControlNets that a client may name: those of the user's folder, and those given."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.checkpoints import hub, model_paths
from restore.errors import ModelError, UsageError

MOST = 1000  # entries of a folder that are looked at


@dataclass(frozen=True)
class Adapters:
    """What may be named beside a model. A client gives names, which no path is made of.

    Attributes:
        loras: Files, folders of one LoRA, and folders of several.
        controlnets: Folders.
    """

    loras: Sequence[Path] = ()
    controlnets: Sequence[Path] = ()

    @classmethod
    def of(cls, loras: Sequence[Path], controlnets: Sequence[Path]) -> "Adapters":
        """Make adapters from the words of the command line.

        Raises:
            UsageError: There is nothing of the kind at a path.
        """
        for path in loras:
            if not path.is_dir() and path.suffix != ".safetensors":
                raise UsageError(f"--lora {path}: give a .safetensors file, or a folder of them")
            if not found_loras(path):
                raise UsageError(f"--lora {path}: there is no LoRA")
        for path in controlnets:
            if not is_controlnet(path):
                raise UsageError(f"--controlnet {path}: is no folder with its config.json")
        return cls([path.resolve() for path in loras], [path.resolve() for path in controlnets])

    def list_loras(self) -> dict[str, Path]:
        """Find all LoRAs: paths by name, sorted."""
        found: dict[str, Path] = {}
        for place in (*self.loras, model_paths.user_folder() / "loras"):
            for name, path in found_loras(place).items():
                found.setdefault(name, path)
        return dict(sorted(found.items()))

    def list_controlnets(self) -> dict[str, Path]:
        """Find all ControlNets: folders by name, sorted."""
        found = {path.name: path for path in self.controlnets}
        for path in entries(model_paths.user_folder() / "controlnets"):
            if is_controlnet(path):
                found.setdefault(path.name, path)
        return dict(sorted(found.items()))

    def lora(self, name: str) -> Path:
        """Return the path of a LoRA. Raises UsageError if there is none of that name."""
        return chosen("lora", name, self.list_loras())

    def controlnet(self, name: str) -> Path:
        """Return the folder of a ControlNet. Raises UsageError if there is none of that name."""
        return chosen("controlnet", name, self.list_controlnets())


def chosen(what: str, name: str, found: dict[str, Path]) -> Path:
    """Return the path of a name. Raises UsageError that lists the names."""
    if name not in found:
        there = f"there are {', '.join(found)}" if found else "this server was given none"
        raise UsageError(f"request: {what}: there is no {name!r}; {there}")
    return found[name]


def found_loras(source: Path) -> dict[str, Path]:
    """Find the LoRAs at a path: a file, a folder of one, or a folder of files and such folders."""
    if source.is_file():
        return {source.stem: source}
    if is_lora_folder(source):
        return {source.name: source}
    found = {path.stem: path for path in entries(source) if path.suffix == ".safetensors"}
    return found | {path.name: path for path in entries(source) if is_lora_folder(path)}


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing if it is missing or cannot be read."""
    try:
        names = sorted(folder.iterdir())[:MOST]
    except OSError:
        return []
    return [path for path in names if not path.name.startswith(".") and path.name.isprintable()]


def is_lora_folder(path: Path) -> bool:
    """Whether a folder holds one LoRA, as diffusers or PEFT saves it."""
    try:
        return path.is_dir() and hub.lora_file(path).is_file()
    except ModelError:
        return False


def is_controlnet(path: Path) -> bool:
    """Whether a folder holds one network, as diffusers saves it."""
    return (path / "config.json").is_file()
