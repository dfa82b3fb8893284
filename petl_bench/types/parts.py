"""The parts of a run: task, backbone, adapter, recipe, protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SPLITS = ("train", "val", "test")
"""The splits of every task, in the order in which fingerprints take them."""

TRAINVAL = "trainval"
"""All images a final training may use: VTAB's train800val200; a few-shot set's training list alone."""

RESIZES = ("stretch", "crop")
"""Ways to the backbone's square: straight, or the short side to 256/224 of it and its centre cut out."""

FLOAT_BITS = 32
"""The bit-width that stands for no quantization."""

PRECISIONS = ("fp32", "bf16", "int8", "auto")
"""The precision in which a frozen backbone is stored and computes; `auto` is resolved by the device."""

PACKINGS = ("coded", "raw")
"""Codes entropy-coded where that makes a file smaller, or whole."""

STATISTICS = ("exact", "short")
"""Shifts and spreads of matrices as float32, or in the fewest bytes that leave predictions as they are."""

ACTIVATIONS = ("full", "exact", "4bit", "2bit")
"""What is kept of a backbone's activations for the backward pass (petl_bench.backbones.activations)."""

AVERAGE_WEIGHTS = ("loss", "step")
"""What the weight of a checkpoint grows with: the inverse of its training loss, or its number."""

NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


@dataclass(frozen=True)
class TaskSpec:
    """One data set as a run uses it: the facts of its manifest and, once settled, of the files found."""

    name: str
    suite: str
    group: str
    classes: int
    source: str
    """Name of the generator or of the layout in petl_bench.data."""
    splits: dict[str, int]
    """Number of images of train, val and test."""
    fingerprint: str
    """SHA-256 over the images and labels of all splits; checked whenever the data are loaded."""
    resize: str = "stretch"
    shots: int = 0
    """Training images a class, in few-shot sets; else 0."""
    split_seed: int = 0
    """Which of several draws of the training images."""
    drawn: int = 0
    """Images drawn from a folder tree for train and val together; else 0."""
    override: str = ""
    """Facts of the manifest that the user has overridden, as `splits.test=40`; no row then compares."""
    place: dict[str, str] = field(default_factory=dict)
    """Where the files are: `root`, and once settled `lists` and `images`. Not identity."""


@dataclass(frozen=True)
class BackboneSpec:
    """A frozen backbone: a timm architecture and where its weights come from."""

    name: str
    """timm architecture, for example vit_base_patch16_224."""
    weights: str
    """`pretrained`, `random`, a path, or `bundled:FILE` for a file of the package."""
    image_size: int
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of timm.create_model."""
    label: str = ""
    """The name in tables; `name` where empty."""
    normalization: str = "none"
    """How the pretraining normalized pixels: what `train.normalization=backbone` stands for."""
    published: bool = False
    """Whether the field's published VTAB-1K and FGVC rows were made with these weights."""

    @property
    def has_dropout(self) -> bool:
        """Whether the options ask timm for some."""
        return any("drop" in key and value for key, value in self.options.items())

    @property
    def display_name(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter method by name with its own settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentSpec:
    """Random changes of the training images; all off by default.

    With `crop`, timm's training transform: random resized crop (8 to 100 % of the area), flip, then
    `auto_augment` (its policy string) or colour jitter. The other four act on batches.
    """

    crop: bool = False
    color_jitter: float = 0.0
    auto_augment: str = ""
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0

    @property
    def random(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        return bool(self.crop or self.erasing or self.mixup or self.cutmix)


@dataclass(frozen=True)
class AverageSpec:
    """A weighted mean of a training's last states instead of the last one (arXiv 2504.18580)."""

    checkpoints: int = 0
    """How many states; 0: the last epoch counts alone."""
    every: int = 10
    """Epochs between two of them; the last is that of the last epoch."""
    by: str = "loss"
    """One of AVERAGE_WEIGHTS."""
    power: float = 1.0
    """A weight is proportional to this power of 1 / loss, or of the epoch; 0: all are equal."""

    def shortened(self, epochs: int, full: int) -> AverageSpec:
        """The same over fewer epochs, as far as these have the states."""
        if not self.checkpoints:
            return self
        every = max(1, self.every * epochs // full)
        count = min(self.checkpoints, (epochs - 1) // every + 1)
        return replace(self, every=every, checkpoints=count) if count >= 2 else AverageSpec()


@dataclass(frozen=True)
class TrainSpec:
    """The training recipe; times in epochs."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_epochs: int
    warmup_lr: float
    min_lr: float
    schedule_lag: int
    """Epochs the schedule runs behind the training: 1 in the released code, which steps after each epoch."""
    drop_path: float
    normalization: str
    """`none` feeds pixels in [0, 1]; the others subtract a mean and divide by a deviation."""
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    average: AverageSpec = field(default_factory=AverageSpec)
    activations: str = "full"
    """One of ACTIVATIONS; `4bit` and `2bit` approximate gradients."""

    def shortened(self, share: float) -> TrainSpec:
        """The same schedule in a share of the epochs; times in epochs shrink too, rounded down."""
        epochs = round(share * self.epochs)
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * epochs // self.epochs,
            schedule_lag=self.schedule_lag * epochs // self.epochs,
            average=self.average.shortened(epochs, self.epochs),
        )


@dataclass(frozen=True)
class ProtocolSpec:
    """How hyper-parameters are chosen and when test is looked at."""

    name: str
    """`sealed`, `fixed` or `peek`."""
    scales: list[float] = field(default_factory=list)
    """sealed: the scales to try on val; empty where the scale is given."""
    lrs: list[float] = field(default_factory=list)
    """sealed: the learning rates to try on val; empty where train.lr stands."""
    rungs: list[float] = field(default_factory=list)
    """sealed: shares of the epochs for successive halving (petl_bench.run.search); empty: full search."""
    every: int = 0
    """peek: epochs between two looks at test."""

    @property
    def rungs_text(self) -> str:
        return " ".join(f"{share:g}" for share in self.rungs)


@dataclass(frozen=True)
class ModelSpec:
    """What a reloaded model is built from: the part of a run that an adapter file must carry."""

    backbone: BackboneSpec
    adapter: AdapterSpec
    hidden: int
    scale: float
    quantizer: str
    bits: int
    head: str
    classes: int
