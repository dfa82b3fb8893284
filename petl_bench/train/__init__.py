"""fit() and evaluate(): the loops, the schedule, augmentation, checkpoints, TensorBoard."""

from petl_bench.train.augment import transform
from petl_bench.train.average import Average
from petl_bench.train.checkpoint import TrainingState
from petl_bench.train.loop import (
    DivergedError,
    compiled,
    evaluate,
    fit,
    learning_rate,
    log_epochs,
    log_result,
    outputs,
    predict,
)
from petl_bench.train.pixels import Pixels

__all__ = [
    "Average",
    "DivergedError",
    "Pixels",
    "TrainingState",
    "compiled",
    "evaluate",
    "fit",
    "learning_rate",
    "log_epochs",
    "log_result",
    "outputs",
    "predict",
    "transform",
]
