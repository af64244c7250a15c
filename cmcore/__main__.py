"""The command ``cmcore``, and ``python -m cmcore``: Ctrl-C ends it with a sentence, even while the program is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit status; 130 after Ctrl-C."""
    try:
        from cmcore.run import cli

        return cli.main()
    except KeyboardInterrupt:
        print("cmcore: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
