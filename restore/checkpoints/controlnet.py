"""ControlNets for a checkpoint: find one, check that it fits, load it.

This module imports torch only for loading.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.checkpoints import families, hub
from restore.errors import ConfigError, ImageError, ModelError, UsageError
from restore.storage import sealed

if TYPE_CHECKING:
    from restore.diffusion.stack import Stack
    from restore.images.picture import Picture

MOST_BYTES = 2**31  # of its picture's file
MOST = 10.0  # largest scale; above it the result is not even noise
SHARED = (  # fields that must be equal in the configs of a ControlNet and its UNet
    *("cross_attention_dim", "block_out_channels", "layers_per_block"),
    *("addition_embed_type", "projection_class_embeddings_input_dim"),
)


@dataclass(frozen=True)
class Found:
    """A ControlNet's files and settings.

    Attributes:
        name: As the user gave it.
        folder: Where its files are.
        scale: The conditioning scale: 0 is off, 1 is as trained.
        image: Its input picture. None: the picture that is processed.
    """

    name: str
    folder: Path
    scale: float
    image: Path | None

    @property
    def files(self) -> list[Path]:
        """All files that it uses."""
        used = [self.folder / "config.json", *hub.weight_files(self.folder)]
        return [*used, *([self.image] if self.image else [])]

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of its config, weights and input picture."""
        sums = [f"{file.name} {sealed.sha256(file)}" for file in self.files]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """What decides the pixels, for the records of a run."""
        image = {"control_image": str(self.image)} if self.image else {}
        own = {"controlnet": self.name, "controlnet_sha256": self.digest}
        return {**own, "controlnet_scale": self.scale, **image}

    def require(self, task: str) -> None:
        """Raise UsageError if a task has no picture for the ControlNet."""
        if self.image is None and task in ("text2img", "inpaint"):
            raise UsageError(f"{task} with a ControlNet needs its picture: --control-image FILE")

    def with_digest(self, weights: str) -> str:
        """Combine the digest of a checkpoint's weights with that of this ControlNet."""
        return hashlib.sha256(f"{weights} {self.digest} {self.scale}".encode()).hexdigest()


def find(
    name: str | None,
    scale: float = 1.0,
    image: str | Path | None = None,
    *,
    offline: bool = False,
    allow_pickle: bool = False,
) -> Found | None:
    """Find a ControlNet; None if none is asked for.

    Args:
        name: A folder with config.json and weights, as diffusers saves one; or a hub id.
        scale: The conditioning scale, 0 to 10.
        image: Its input picture.
        offline: Do not use the network.
        allow_pickle: Accept .bin weights.

    Raises:
        ModelError: If there is none that can be read; known before its weights are downloaded.
        UsageError: If the picture is missing, or a picture or scale is given without a ControlNet.
        ConfigError: If the scale is out of range.
    """
    if name is None:
        if image is not None or scale != 1:
            option = (
                f"--controlnet-scale {scale:g}" if image is None else f"--control-image {image}"
            )
            raise UsageError(f"{option}: is for a ControlNet; give --controlnet")
        return None
    if not 0 <= scale <= MOST:
        raise ConfigError(f"--controlnet-scale {scale:g}: must be 0 to {MOST:g}; 1 is usual")
    picture = None if image is None else Path(image)
    if picture is not None and not picture.is_file():
        raise UsageError(f"--control-image {image}: no such file")
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_file() or not hub.HUB_ID.fullmatch(name):
            raise ModelError(
                f"{name}: no such ControlNet; give a folder with its config.json and weights, as "
                "diffusers saves one, or a hub id such as org/name@revision"
            )
        folder = hub.fetch_controlnet(name, offline, allow_pickle)
    families.refuse_controlnet(folder, name)
    files = hub.weight_files(folder)
    if not files:
        raise ModelError(f"{name}: has no weights (diffusion_pytorch_model.safetensors)")
    hub.refuse_pickles(files, allow_pickle)
    return Found(name, folder, scale, picture)


def steer(stack: "Stack", found: Found, allow_pickle: bool = False) -> None:
    """Load a ControlNet and attach it to the stack, in fp32 on the CPU.

    Raises:
        ModelError: If it is for another model.
        ImageError: If its picture cannot be read.
    """
    from restore.checkpoints import components
    from restore.diffusion.control import Control
    from restore.diffusion.layouts import BASE, INPAINTING

    if stack.layout not in (BASE, INPAINTING) or stack.context is None:
        raise ModelError(
            f"{found.name}: a ControlNet steers Stable Diffusion and SDXL; {stack.name} has the "
            f"{stack.layout.name} layout"
        )
    net = components.build(
        found.folder.parent,
        found.folder.name,
        lambda part, _: components.read_weights(found.folder.parent, part, allow_pickle),
        kind="controlnet",
    )
    refuse_another(stack, dict(net.config), found.name)
    stack.control = Control(net, found.scale, read_picture(found.image) if found.image else None)


def read_picture(path: Path) -> "Picture":
    """Read the picture of a ControlNet, from the bytes that were hashed."""
    from restore.images import sandbox
    from restore.images.picture import Encoded, Reading

    try:
        source = Encoded(sealed.read(path, MOST_BYTES), path.suffix)
        return sandbox.read(source, Reading(icc="srgb"))
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror or error}"
        raise ImageError("UNREADABLE", problem) from error
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {error}") from error.__cause__


def refuse_another(stack: "Stack", config: dict[str, Any], name: str) -> None:
    """Raise ModelError if a ControlNet with this config is not for the stack's UNet."""
    for key in SHARED:
        ours, theirs = stack.unet.config.get(key), config.get(key)
        if _plain(ours) != _plain(theirs):
            raise ModelError(
                f"{name}: is a ControlNet for another family: its {key} is {theirs}, that of "
                f"{stack.name} {ours}; SD 1.x, 2.x and SDXL each need their own"
            )
    factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    for what, ours, theirs in (
        ("latent channels", stack.channels, config["in_channels"]),
        ("pixels a latent", stack.factor, factor),
        ("channels of the picture that it is shown", 3, config["conditioning_channels"]),
    ):
        if ours != theirs:
            raise ModelError(f"{name}: counts {theirs} {what}, and {stack.name} {ours}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
