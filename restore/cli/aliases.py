"""Options that people know from other tools: they become ours, or an error says what to use."""

from collections.abc import Sequence

from restore.errors import UsageError

OVER_FILES = ("upscale", "inpaint", "img2img")
MAKERS = (*OVER_FILES, "text2img")
SAME = {"--color": "--colour", "--outscale": "--scale", "--ext": "--format"}
INPUT = ("-i", "--input")
ALONE = {
    "--fp16": ["--dtype", "fp16"],
    "--half": ["--dtype", "fp16"],
    "--fp32": ["--dtype", "fp32"],
}
_TILE = "not needed: memory is bounded; --windows trades speed for memory"
_GPU = "choose with --device; the environment's CUDA_VISIBLE_DEVICES says which card"
ANSWERS = {
    **dict.fromkeys(("-t", "--tile", "--tile-size", "--tile-pad"), _TILE),
    **dict.fromkeys(("-g", "--gpu-id"), _GPU),
    "--suffix": "results keep the names of their inputs; for one input -o big.jpg names it",
}


def plain(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with the options of other tools replaced by ours.

    Raises:
        UsageError: We do not need such an option; the message says what to use.
    """
    command = argv[0] if argv else ""
    if command not in MAKERS:
        return list(argv)
    argv = _by_ray(argv)
    words = [command]
    for index, word in enumerate(argv[1:], 1):
        if word == "--":
            return words + list(argv[index:])
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
