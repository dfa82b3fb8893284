"""The training recipe of a run, with augmentation and averaging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from petl_bench.types.settings import check_ranges, require, setting

MOST_EPOCHS, MOST_RATE = 10**6, 1e38
"""Bounds: of numbers of epochs or images for sanity, of rates and decay by what float32 holds."""

ACTIVATIONS = ("full", "exact", "4bit", "2bit")
"""Activations of the backbone that are kept for the backward pass (petl_bench.backbones.activations)."""

AVERAGE_WEIGHTS = ("loss", "step")
"""Weights of averaged states: a power of the inverse of the training loss, or of the number of the state."""

WARM_UP = ("warmup_epochs", "schedule_lag")
"""Settings of a recipe that say when the learning rate has risen to `lr`, in epochs."""

NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "sat493m": ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)),
}
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


@dataclass(frozen=True)
class AugmentSpec:
    """Random changes of the training images; all off by default.

    With `crop`, timm's training transform: random resized crop (8 to 100 % of the area), horizontal flip,
    then `auto_augment` (timm's policy string) or color jitter. The other four act on batches.
    """

    crop: bool = setting(
        "Whether to train on random resized crops and horizontal flips.", False, before=False
    )
    color_jitter: float = setting("Strength of color jitter, with crops.", 0.0, before=0.0, least=0, most=100)
    auto_augment: str = setting(
        "timm's policy string, for example rand-m9-mstd0.5-inc1, with crops.", "", before=""
    )
    erasing: float = setting(
        "Probability that a rectangle of an image is erased.", 0.0, before=0.0, least=0, most=1
    )
    mixup: float = setting("Alpha of mixup; 0: none.", 0.0, before=0.0, least=0, most=1000)
    cutmix: float = setting("Alpha of CutMix; 0: none.", 0.0, before=0.0, least=0, most=1000)
    smoothing: float = setting("Label smoothing.", 0.0, before=0.0, least=0, most=1)

    def __post_init__(self) -> None:
        check_ranges(self, "train.augment.")

    @property
    def random(self) -> bool:
        """Return whether an image differs from epoch to epoch."""
        return bool(self.crop or self.erasing or self.mixup or self.cutmix)


@dataclass(frozen=True)
class AverageSpec:
    """A weighted mean of a training's last states instead of the last one (arXiv 2504.18580)."""

    checkpoints: int = setting(
        "Number of states to average; 0: the last epoch alone.",
        0,
        before=0,
        least=0,
        most=MOST_EPOCHS,
        right="0, or 2 or more",
    )
    every: int = setting(
        "Epochs between two averaged states; the last is that of the last epoch.",
        10,
        before=10,
        least=1,
        most=MOST_EPOCHS,
    )
    by: str = setting(
        "Whether weights grow with 1 / training loss or with the number of the epoch.",
        "loss",
        before="loss",
        choices=AVERAGE_WEIGHTS,
        right=" or ".join(AVERAGE_WEIGHTS),
    )
    power: float = setting(
        "Power of 1 / loss, or of the epoch, that a weight is proportional to; 0: equal weights.",
        1.0,
        before=1.0,
        least=0,
        most=20,
        right="0 to 20",
    )

    def __post_init__(self) -> None:
        check_ranges(self, "train.average.")
        require(self.checkpoints != 1, "train.average.checkpoints", self.checkpoints, "0, or 2 or more")

    def shortened(self, epochs: int, full: int) -> AverageSpec:
        """Return the average over a training of fewer epochs, as far as these have the states."""
        if not self.checkpoints:
            return self
        every = max(1, self.every * epochs // full)
        count = min(self.checkpoints, (epochs - 1) // every + 1)
        return replace(self, every=every, checkpoints=count) if count >= 2 else AverageSpec()


@dataclass(frozen=True)
class TrainSpec:
    """The training recipe; times in epochs. The files of conf/train state its values."""

    epochs: int = setting(
        "Epochs of training; with fewer than 2 warm-ups of the recipe, the warm-up keeps its share.",
        least=1,
        most=MOST_EPOCHS,
    )
    batch_size: int = setting("Images per step.", least=1, most=MOST_EPOCHS)
    lr: float = setting(
        "Learning rate of AdamW after the warm-up.", above=0, most=MOST_RATE, column="task", follows_bits=True
    )
    weight_decay: float = setting("Weight decay of AdamW.", least=0, most=MOST_RATE)
    warmup_epochs: int = setting("Epochs of linear warm-up.", least=0, most=MOST_EPOCHS)
    warmup_lr: float = setting("Learning rate at the beginning of the warm-up.", least=0, most=MOST_RATE)
    min_lr: float = setting("Learning rate at the end of the cosine schedule.", least=0, most=MOST_RATE)
    schedule_lag: int = setting(
        "Epochs that the schedule lags behind: 1 in the released code, which steps it after each epoch.",
        least=0,
        most=MOST_EPOCHS,
    )
    drop_path: float = setting(
        "Drop path rate (stochastic depth) at the last block; a head alone (linear) ignores it.",
        least=0,
        below=1,
    )
    normalization: str = setting(
        "Pixel normalization: none, imagenet, half, clip, sat493m, or backbone: that of its pretraining.",
        choices=(*NORMALIZATIONS,),
    )
    augment: AugmentSpec = setting("Augmentation of the training images.", value=AugmentSpec)
    average: AverageSpec = setting(
        "Average of the last states.", value=AverageSpec, before=AverageSpec, quiet=True
    )
    activations: str = setting(
        "Activations kept for backward: full; exact: fewer, equal gradients; 4bit, 2bit: approximate ones.",
        "full",
        before="full",
        quiet=True,
        choices=ACTIVATIONS,
    )

    def __post_init__(self) -> None:
        check_ranges(self, "train.")
        average = self.average
        require(
            (average.checkpoints - 1) * average.every < self.epochs,
            "train.average.checkpoints",
            average.checkpoints,
            f"fewer: train.epochs={self.epochs} have not as many, {average.every} epochs apart",
        )
        require(
            not (self.augment.mixup or self.augment.cutmix) or self.batch_size % 2 == 0,
            "train.batch_size",
            self.batch_size,
            "even, because mixup and cutmix pair images",
        )

    @property
    def only_warms_up(self) -> bool:
        """Return whether the training is over before the learning rate reaches `lr`."""
        return bool(self.warmup_epochs) and self.epochs <= self.warmup_epochs + self.schedule_lag

    def shortened(self, share: float) -> TrainSpec:
        """Return the recipe for a share of the epochs; times in epochs shrink too, rounded down."""
        epochs = round(share * self.epochs)
        return replace(
            self,
            epochs=epochs,
            **{name: getattr(self, name) * epochs // self.epochs for name in WARM_UP},
            average=self.average.shortened(epochs, self.epochs),
        )


def shortened_warm_up(recipe: Mapping[str, Any], epochs: object) -> dict[str, int]:
    """Return the warm-up of a recipe that is run in fewer epochs than its own.

    Where the warm-up would take more than half of them, it takes its share of the recipe, rounded down.

    Args:
        recipe: values of a recipe, unchecked; some may be missing.
        epochs: number of epochs chosen for it, unchecked.

    Returns:
        New values of WARM_UP; empty where the recipe's own ones do.
    """
    stated = [epochs, recipe.get("epochs"), *(recipe.get(name) for name in WARM_UP)]
    numbers = [value for value in stated if type(value) is int]
    if len(numbers) < len(stated):
        return {}
    chosen, full, *held = numbers
    warm_up = dict(zip(WARM_UP, held, strict=True))
    if not 0 < chosen < full or 2 * warm_up["warmup_epochs"] <= chosen:
        return {}
    return {name: value * chosen // full for name, value in warm_up.items()}
