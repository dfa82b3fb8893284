"""Store of results: one directory per run, and claims of the processes that execute runs."""

from petl_bench.store.agreement import with_digests
from petl_bench.store.claims import Claim, ClaimedError, Claims
from petl_bench.store.files import (
    ADAPTER,
    ERROR,
    EVENTS,
    FILES,
    LOG,
    PREDICTIONS,
    ROW,
    SEARCH,
    SPEC,
    from_json,
)
from petl_bench.store.finding import find_run
from petl_bench.store.runs import ASIDE, Store

__all__ = [
    "ADAPTER",
    "ASIDE",
    "ERROR",
    "EVENTS",
    "FILES",
    "LOG",
    "PREDICTIONS",
    "ROW",
    "SEARCH",
    "SPEC",
    "Claim",
    "ClaimedError",
    "Claims",
    "Store",
    "find_run",
    "from_json",
    "with_digests",
]
