"""`python -m petl_bench` is the `petl-bench` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, during its imports too."""
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(128 + number))
    from petl_bench.cli import main

    main()


if __name__ == "__main__":
    main()
