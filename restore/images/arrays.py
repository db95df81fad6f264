"""Conversion between Picture and Pillow, numpy or torch images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from PIL.Image import Transpose
from torch import Tensor

from restore.errors import ImageError, UsageError
from restore.images import deep_samples
from restore.images.masks import flatten
from restore.images.metadata import read_exif
from restore.images.picture import Picture, grey_to_rgb, to_uint8

OneImage = Image.Image | np.ndarray | Tensor
"""Pillow; numpy (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16, or float in [0, 1];
torch (1, H, W), (3, H, W) or (4, H, W), uint8, uint16, or float in [0, 1]"""

Kind = Literal["pil", "np", "pt"]
LIKE: dict[Kind, OneImage] = {  # an example of each kind
    "pil": Image.new("RGB", (1, 1)),
    "np": np.zeros((1, 1, 3), np.uint8),
    "pt": torch.zeros(3, 1, 1, device="cpu"),
}
Gather = Callable[[list[Any]], Any]
TURNS = {  # by EXIF's orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def to_list(images: Any) -> tuple[list[Any], Gather]:
    """Split one picture, a list or a batch into a list.

    Returns:
        The pictures, and a function that joins results in the form that `images` had.
    """
    if isinstance(images, list | tuple):
        return list(images), list
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4 and not len(images):
        raise UsageError("a batch of no pictures")
    if isinstance(images, Tensor) and images.ndim == 4:
        return list(images), torch.stack
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images), np.stack
    return [images], take_first


def take_first(results: list[Any]) -> Any:
    """Return the only picture."""
    return results[0]


def to_picture(image: OneImage) -> Picture:
    """Convert an image to a Picture; floats become 16 bits.

    Raises:
        UsageError: It is not a picture: wrong type, shape or range.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        if len(shape) != 3 or shape[0] not in (1, 3, 4) or 0 in shape:
            kinds = "(1, H, W), (3, H, W) or (4, H, W)"
            raise UsageError(f"a tensor of shape {shape}: a picture is {kinds}")
        array = image.detach().cpu().movedim(0, 2)
        return _from_array((array.float() if array.is_floating_point() else array).numpy())
    if isinstance(image, np.ndarray):
        return _from_array(image)
    mend = "open the file first, as by PIL.Image.open"
    if not isinstance(image, str | Path):
        mend = "give Pillow, numpy or torch"
    raise UsageError(f"a {type(image).__name__} is no picture; {mend}")


def to_mask(mask: OneImage) -> np.ndarray:
    """Convert a mask to uint8 (H, W), as that of a file is; booleans become 0 and 255.

    Raises:
        UsageError: It is not a picture: wrong type, shape or range.
    """
    if isinstance(mask, Tensor) and mask.ndim == 2:
        mask = mask[None]
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = mask.to(torch.uint8) * 255
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * 255
    return flatten(to_picture(mask))


def convert_like(picture: Picture, like: OneImage) -> OneImage:
    """Convert a picture to the type of `like`: class, channels, dtype and device.

    Alpha stays. Pillow has no colours of 16 bits: they become 8, and so does grey, unless `like`
    has 16 too.
    """
    if isinstance(like, Image.Image):
        return _to_pillow(picture, is_deep=like.mode.startswith("I"))
    is_tensor = isinstance(like, Tensor)
    channels = 1 if like.ndim == 2 else like.shape[0 if is_tensor else 2]
    is_grey = picture.grey and channels == 1
    layers = picture.pixels[..., :1] if is_grey else picture.pixels
    if picture.alpha is not None:
        layers = np.dstack([layers, picture.alpha])
    if is_tensor:
        if like.is_floating_point():
            made = _unit(layers)
        else:
            made = to_uint8(layers) if like.dtype == torch.uint8 else layers
        made = made if made.flags.writeable else made.copy()
        return torch.from_numpy(made).movedim(2, 0).contiguous().to(like.device, like.dtype)
    layers = layers[..., 0] if like.ndim == 2 else layers
    if like.dtype.kind == "f":
        return _unit(layers).astype(like.dtype)
    return to_uint8(layers) if like.dtype == np.uint8 else layers


def _to_pillow(picture: Picture, is_deep: bool) -> Image.Image:
    layers = picture.pixels[..., 0] if picture.grey else picture.pixels
    if not (picture.grey and picture.alpha is None and is_deep):
        layers = to_uint8(layers)
    if picture.alpha is not None:
        layers = np.dstack([layers, to_uint8(picture.alpha)])
    made = Image.fromarray(layers)
    if picture.icc:
        made.info["icc_profile"] = picture.icc
    return made


def _from_pillow(image: Image.Image) -> Picture:
    try:
        _loaded(image)
    except (OSError, ValueError, SyntaxError) as error:  # of Pillow, for broken and closed files
        raise UsageError(f"a picture that Pillow cannot read: {error}; open it again") from error
    if 0 in image.size:
        raise UsageError(f"a picture of {image.width}x{image.height} px has no pixels")
    # not by ImageOps.exif_transpose, which fails on tags that it cannot write again
    orientation, _ = read_exif(image, "all", [])
    if turn := TURNS.get(orientation):
        image = image.transpose(turn)
    icc = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        try:
            pixels, _, _ = deep_samples.decode_grey(image)
        except ImageError as error:
            raise UsageError(str(error)) from error
        key = image.info.get("transparency")
        alpha = None if key is None else deep_samples.cut_out(pixels, key)
        return Picture(pixels, alpha, grey=True, icc=icc)
    if image.mode == "F":
        raise UsageError("Pillow's mode F has no range of its own; give numpy floats in [0, 1]")
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La", "1")
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no other way
        rgba = np.asarray(image.convert("RGBA"))
        return Picture(rgba[..., :3].copy(), rgba[..., 3].copy(), grey=grey, icc=icc)
    grey = image.mode in ("L", "1")
    icc = icc if grey or image.mode in ("RGB", "P") else None  # the others' colours are converted
    return Picture(np.array(image.convert("RGB")), grey=grey, icc=icc)


def _loaded(image: Image.Image) -> None:
    """Load an image; a TIFF turns itself then.

    Pillow maps the file of one without compression into memory, and takes one that is stored on
    its side for upright: its pixels are scrambled. It maps none without a name.
    """
    name = getattr(image, "filename", "")
    if not name:
        image.load()
        return
    image.filename = ""  # pyright: ignore[reportAttributeAccessIssue]
    try:
        image.load()
    finally:
        image.filename = name  # pyright: ignore[reportAttributeAccessIssue]


def _from_array(array: np.ndarray) -> Picture:
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in shape:
        raise UsageError(f"an array of shape {shape}: a picture is (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UsageError("a picture of floats is in [0, 1]; divide by 255, or clip it")
        wide = np.promote_types(array.dtype, np.float32)  # 65535 is infinity to halves
        array = np.rint(array.astype(wide) * 65535).astype(np.uint16)
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise UsageError(f"numbers of type {array.dtype}: give uint8, uint16, or floats in [0, 1]")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.shape[2] == 1:
        return Picture(grey_to_rgb(array[..., 0]), grey=True)
    alpha = np.array(array[..., 3], order="C") if array.shape[2] == 4 else None
    # a copy: where nothing is to be done, the picture is the result, and that is the caller's own
    return Picture(np.array(array[..., :3], order="C"), alpha)


def _unit(array: np.ndarray) -> np.ndarray:
    return array / np.float32(np.iinfo(array.dtype).max)


def example_of(output_type: str) -> OneImage:
    """Return an example picture of an output type. Raises UsageError if there is no such type."""
    if output_type not in LIKE:
        raise UsageError(f"output_type {output_type!r}: there are {', '.join(LIKE)}")
    return LIKE[output_type]
