"""`python tools/report.py ...` is `restore report ...`, from this checkout as it is."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # the checkout in place of tools/, whose file names would hide modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from restore.cli import main

    sys.exit(main(["report", *sys.argv[1:]]))
