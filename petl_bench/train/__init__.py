"""fit() and evaluate(): the loops, the schedule, augmentation, TensorBoard."""

from petl_bench.train.augment import transform
from petl_bench.train.loop import (
    DivergedError,
    compiled,
    evaluate,
    fit,
    learning_rate,
    log_epoch,
    log_result,
    outputs,
    predict,
)
from petl_bench.train.pixels import Pixels

__all__ = [
    "DivergedError",
    "Pixels",
    "compiled",
    "evaluate",
    "fit",
    "learning_rate",
    "log_epoch",
    "log_result",
    "outputs",
    "predict",
    "transform",
]
