"""``python -m cmcore`` is the command ``cmcore``."""

import sys

from cmcore.run.cli import main

if __name__ == "__main__":
    sys.exit(main())
