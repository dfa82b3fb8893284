"""TensorBoard entries of a run: curves of the training, settings and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from petl_bench.train.schedule import learning_rate
from petl_bench.types import TrainSpec


def log_epochs(log: SummaryWriter, losses: Sequence[float], recipe: TrainSpec, begin: int = 0) -> None:
    """Write losses and learning rates of consecutive epochs.

    Args:
        log: writer of the run.
        losses: mean loss of each epoch.
        recipe: recipe of the training.
        begin: number of the first epoch, from 0.
    """
    for epoch, loss in enumerate(losses, begin):
        log.add_scalar("train/loss", loss, epoch)
        log.add_scalar("train/lr", learning_rate(epoch, recipe), epoch)


def log_validation(log: SummaryWriter, name: str, accuracies: Mapping[int, float]) -> None:
    """Write accuracies on val of one training.

    Args:
        log: writer of the run.
        name: name of the curve.
        accuracies: accuracy after some epochs, by the number of the epoch, from 0.
    """
    for epoch, accuracy in accuracies.items():
        log.add_scalar(name, accuracy, epoch)


def log_result(log: SummaryWriter, settings: Mapping[str, str | float], result: Mapping[str, float]) -> None:
    """Write settings and results for the HPARAMS page of TensorBoard into the run's own directory."""
    events: Any = log.file_writer
    for summary in hparams(dict(settings), dict(result)):
        events.add_summary(summary)
    for name, value in result.items():
        log.add_scalar(name, value)
