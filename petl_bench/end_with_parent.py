"""Import of this module makes a process end with its parent; the fork server of a pool imports it first.

By itself the server would notice that its parent has ended only after its imports, which take seconds. This
works on Linux only. Processes that the server forks do not inherit it.

It also keeps the server's processes silent if the parent ends while it starts them: they are then told
nothing or only a part of what they have to do, which would be printed as an error.
"""

import ctypes
import signal
import sys
from pickle import UnpicklingError
from types import TracebackType

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error, unless it is that of a process whose start was given up."""
    if not issubclass(kind, EOFError | UnpicklingError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_error
