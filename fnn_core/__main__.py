"""Runs the command line: ``python -m fnn_core`` is ``fnn``."""

import sys

from fnn_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
