"""Import of this module makes a process end with its parent; the fork server of a pool imports it first.

By itself the server would notice that its parent has ended only after its imports, which take seconds. This
works on Linux only. Processes that the server forks do not inherit it.
"""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
