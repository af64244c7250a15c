# PYTHON_ARGCOMPLETE_OK
"""The command ``cmcore``, and ``python -m cmcore``: Ctrl-C ends it with a sentence, even while the program is imported."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress


def main() -> int:
    """Run the command line and return its exit status; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    try:
        from cmcore.run import cli, signals

        signals.raised()
        return cli.main()
    except KeyboardInterrupt as stop:
        # Who has closed the terminal does not read this.
        with suppress(OSError, ValueError):
            print("cmcore: interrupted.", file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
