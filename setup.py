"""A wheel holds configs/ as restore/configs; all else of the build is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """Build the packages, then copy the configurations beside them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib) / "restore" / "configs"
            shutil.copytree("configs", place, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigs})
