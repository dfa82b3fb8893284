"""`python -m petl_bench` is the `petl-bench` command."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and end the process.

    Ctrl-C ends it with one line instead of a traceback, during its imports too. The process ends without
    freeing every object, which takes more than a second once torch has been imported.
    """
    code: object = 1
    signal.signal(signal.SIGINT, _interrupted)
    atexit.register(lambda: _leave(code))  # registered first, so it is called last
    try:
        from petl_bench.cli import main

        main()
    except SystemExit as end:
        code = end.code
        raise


def _interrupted(number: int, frame: object) -> None:
    """Exit at Ctrl-C during the imports; the command line has a handler of its own."""
    with suppress(OSError, ValueError):  # the terminal may be closed
        print("interrupted", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def _leave(code: object) -> None:
    """End the process at once if its output can be written; otherwise Python ends it and says what failed."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    main()
