"""`python tools/serve.py ...` is `restore serve ...`, from this checkout, installed or not."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # the checkout in place of tools/, whose file names would hide modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from restore.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
