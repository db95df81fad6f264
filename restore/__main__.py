"""python -m restore: the command line, where its script is not on the path."""

import sys

from restore.cli import main

sys.exit(main())
