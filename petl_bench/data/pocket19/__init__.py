"""The nineteen tasks of suite `pocket19`, in VTAB's three groups, drawn or cut from files of packages."""

from petl_bench.data.pocket19 import natural, specialized, structured  # noqa: F401 - register the tasks
from petl_bench.data.pocket19.parts import DRAWS, SUITE, part

__all__ = ["DRAWS", "SUITE", "part"]
