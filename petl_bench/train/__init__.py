"""Training and evaluation: the loop, schedules, augmentation, checkpoints and TensorBoard entries."""

from petl_bench.train.allocations import Allocations
from petl_bench.train.augment import transform
from petl_bench.train.average import Average
from petl_bench.train.checkpoint import TrainingState
from petl_bench.train.evaluation import Passes, evaluate, outputs, predict
from petl_bench.train.loop import Compiled, Hooks, Training, fit
from petl_bench.train.pixels import Pixels
from petl_bench.train.schedule import learning_rate
from petl_bench.train.tensorboard import log_epochs, log_result, log_validation

__all__ = [
    "Allocations",
    "Average",
    "Compiled",
    "Hooks",
    "Passes",
    "Pixels",
    "Training",
    "TrainingState",
    "evaluate",
    "fit",
    "learning_rate",
    "log_epochs",
    "log_result",
    "log_validation",
    "outputs",
    "predict",
    "transform",
]
