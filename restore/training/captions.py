"""What was done to a picture, in the words a user would describe it with."""

from degradations import Trace

LEVELS = ("slight", "some", "strong")


def level(value: float, some: float, strong: float) -> str:
    return LEVELS[(value >= some) + (value >= strong)]


def caption(trace: Trace) -> str:
    """The trace as a short description: "strong noise, jpeg 42, some blur"; "clean" if nothing.

    The worst of each kind is named; blur is in pixels of the original.
    """
    steps = trace.steps
    noise = [step["sigma_levels"] for step in steps if step["kind"] == "gaussian_noise"]
    noise += [step["scale"] * 8 for step in steps if step["kind"] == "poisson_noise"]
    quality = [step["quality"] for step in steps if step["kind"] == "jpeg"]
    blur = [max(step["sigma"]) for step in steps if step["kind"] == "blur"]
    words = []
    if noise and max(noise) >= 1:
        words.append(f"{level(max(noise), 5, 15)} noise")
    if quality and min(quality) < 95:
        words.append(f"jpeg {min(quality)}")
    if blur and max(blur) >= 0.5:
        words.append(f"{level(max(blur), 1, 2)} blur")
    return ", ".join(words) or "clean"
