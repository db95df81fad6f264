"""What has no tensor arithmetic: drawn on the host and sent along, or done there, with a wait."""

import numpy as np

from degradations import ops
from degradations.device.canvas import Canvas, canvas_size, straight_through, upload
from degradations.device.resize import resize_canvas
from degradations.ops.damage import Damage
from degradations.ops.op import Params, Size
from degradations.pipeline import apply_step


def damage(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """Scratches, dust, folds and stains do not look at the picture, so nothing waits for it."""
    layers = np.zeros((len(params), 4, *canvas.rgb.shape[2:]), np.float32)
    for layer, p, (height, width) in zip(layers, params, canvas.sizes.tolist(), strict=True):
        op = ops.OPS[p["kind"]]
        assert issubclass(op, Damage)
        cover, colour = op.layer(p, (height, width))
        layer[0, :height, :width] = cover
        layer[1:, :height, :width] = np.broadcast_to(colour, (height, width, 3)).transpose(2, 0, 1)
    cover, colour = upload(layers, canvas.rgb.device).split((1, 3), 1)
    return canvas.with_rgb(canvas.rgb + cover * (colour - canvas.rgb))


def apply(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """Apply any other op on the host, by its own `apply`; this waits for the device.

    Gradients pass as if the op did nothing but change the size.
    """
    pixels = canvas.rgb.detach().cpu().permute(0, 2, 3, 1).numpy()
    done = [
        apply_step(np.ascontiguousarray(rgb[:height, :width]), p, target)
        for rgb, p, (height, width), target in zip(
            pixels, params, canvas.sizes.tolist(), targets, strict=True
        )
    ]
    sizes = np.array([rgb.shape[:2] for rgb in done])
    if (sizes == canvas.sizes).all():
        frame, smooth = canvas.rgb.shape[2:], canvas
    else:
        frame, smooth = canvas_size(sizes), None
    planes = np.zeros((len(done), 3, *frame), np.float32)
    for plane, rgb, (height, width) in zip(planes, done, sizes.tolist(), strict=True):
        plane[:, :height, :width] = rgb.transpose(2, 0, 1)
    exact = upload(planes, canvas.rgb.device)
    if not canvas.rgb.requires_grad:
        return Canvas(exact, sizes)
    plain = {"mode": "bilinear", "antialias": False}
    smooth = smooth or resize_canvas(canvas, sizes, [plain] * len(params))
    return Canvas(straight_through(exact, smooth.rgb), sizes)
