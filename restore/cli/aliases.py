"""Options that people know from other tools: they become ours, or an error says what to use."""

import os
import re
from collections.abc import Sequence

from restore.errors import UsageError

OVER_FILES = ("upscale", "inpaint", "img2img")
MAKERS = (*OVER_FILES, "text2img")
SAME = {
    "--color": "--colour",
    "--outscale": "--scale",
    **dict.fromkeys(("--ext", "-f"), "--format"),
    **dict.fromkeys(("--output", "--output-dir"), "--out"),
    "--model-path": "--model",
    "--num-inference-steps": "--steps",
    "--guidance-scale": "--guidance",
    "--negative-prompt": "--negative",
    "--denoising-strength": "--strength",
    "--controlnet-conditioning-scale": "--controlnet-scale",
    "--torch-dtype": "--dtype",
}
INPUT = ("-i", "--input", "--input-dir", "--image")
ALONE = {
    "--fp16": ["--dtype", "fp16"],
    "--half": ["--dtype", "fp16"],
    "--fp32": ["--dtype", "fp32"],
    "--cpu-offload": ["--offload"],
}
_TILE = "not needed: memory is bounded; --windows trades speed for memory"
_GPU = "choose with --device; the environment's CUDA_VISIBLE_DEVICES says which card"
_SIZE = (
    "upscale takes times, fractions too: -s 2.5; text2img takes --size 512x384; the others keep it"
)
ANSWERS = {
    **dict.fromkeys(("-t", "--tile", "--tile-size", "--tile-pad", "--pre-pad"), _TILE),
    **dict.fromkeys(("--vae-tiling", "--vae-slicing"), _TILE),
    **dict.fromkeys(("-g", "--gpu-id"), _GPU),
    **dict.fromkeys(("-r", "-w", "--width", "--height", "--resize"), _SIZE),
    **dict.fromkeys(("-x", "--tta"), "there is no such mode; --fidelity 1 is closest to the truth"),
    "--face-enhance": "there is no model for faces; run GFPGAN or CodeFormer on the results",
    "-c": "--quality 1 to 100 is of JPEG, WebP and AVIF",
    "-j": "not needed: the next files are read while one is restored; see --devices too",
    "-m": "name a model by --model; `restore models list` shows those that need no path",
    "--suffix": "results keep the names of their inputs; for one input -o big.jpg names it",
    "--alpha-upsampler": "not needed: transparency is enlarged with the picture",
    **dict.fromkeys(
        ("-dn", "--denoise-strength"),
        "not needed: noise goes as far as it is seen; --fidelity 1 is closest to the truth",
    ),
}
_HOME = re.compile(r"^(-?-?[\w.-]+=)?~(?=[/\\]|$)")


def plain(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with the options of other tools replaced by ours.

    A `~` is the user's folder as well where the shell leaves it: Bash does in `--out=~/big`, those
    of Windows everywhere.

    Raises:
        UsageError: We do not need such an option; the message says what to use.
    """
    argv = [_HOME.sub(_expand, word) for word in argv]
    command = argv[0] if argv else ""
    if command not in MAKERS:
        return argv
    argv = _by_ray(argv)
    words = [command]
    for index, word in enumerate(argv[1:], 1):
        if word == "--":
            return words + argv[index:]
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        if name in ANSWERS:
            raise UsageError(f"{name}: {ANSWERS[name]}")
        if name in ALONE and not equals:
            words += ALONE[name]
        elif name in INPUT and command in OVER_FILES:
            words += [value] if equals else []  # the next word is the input
        elif name == "-n" and command in ("upscale", "img2img"):
            words.append("--model" + equals + value)  # it has no count here, so it names a model
        else:
            words.append(SAME.get(name, name) + equals + value)
    return words


def _expand(found: re.Match[str]) -> str:
    return (found[1] or "") + os.path.expanduser("~")


def _by_ray(argv: Sequence[str]) -> list[str]:
    """The words with `--engine ray` as `--runner ray`: our engines compute, our runners share work.

    Raises:
        UsageError: The command has no runner.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for nth, word in enumerate(words[:end]):
        if word == "--engine=ray" or (word == "--engine" and words[nth + 1 : nth + 2] == ["ray"]):
            if words[0] not in OVER_FILES:
                problem = f"--engine ray: {words[0]} works in one process"
                raise UsageError(f"{problem}; {', '.join(OVER_FILES)} take --runner ray")
            words[nth] = word.replace("engine", "runner")
    return words
