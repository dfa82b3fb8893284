"""One run from first to last: its trainings, its file, its one evaluation."""

from petl_bench.run.life import execute, facts_of, pack, score
from petl_bench.run.training import choose, train, validate

__all__ = ["choose", "execute", "facts_of", "pack", "score", "train", "validate"]
