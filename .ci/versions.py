"""What pyproject.toml asks for: the releases that are installed, or the bare names."""

import os
import platform
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(*extras: str) -> list[str]:
    """Of what the package needs, and these extras."""
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return sorted({re.match(r"[\w.-]+", text)[0] for text in texts})


def installed() -> list[str]:
    """`name==version` of all that is here, extras included."""
    found = []
    for name in names(*PROJECT["optional-dependencies"]):
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["names"]:
        print(*names("test"))
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"Python {platform.python_version()}, {cpus} CPUs:", *installed())
