"""The results: one directory a run, its files, and who is at work on it."""

from petl_bench.store.claims import Claim, ClaimedError, Claims
from petl_bench.store.files import from_json
from petl_bench.store.reading import ADAPTER, ERROR, FILES, LOG, ROW, SEARCH, SPEC
from petl_bench.store.runs import ASIDE, Store

__all__ = [
    "ADAPTER",
    "ASIDE",
    "ERROR",
    "FILES",
    "LOG",
    "ROW",
    "SEARCH",
    "SPEC",
    "Claim",
    "ClaimedError",
    "Claims",
    "Store",
    "from_json",
]
