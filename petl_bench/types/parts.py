"""The parts of a run besides its recipe: task, backbone, adapter, protocol. Each checks its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from petl_bench.types.compression import NOT_COMPRESSED
from petl_bench.types.settings import check_ranges, freeze, require, setting

SPLITS = ("train", "val", "test")
"""The splits of every task, in the order in which fingerprints take them."""

TRAINVAL = "trainval"
"""All images that a final training may use: VTAB's train800val200; the training list of a few-shot set."""

RESIZES = ("stretch", "crop")
"""To a square: `stretch` resizes both sides, `crop` the short side to 256/224 of it before a center crop."""

FLOAT_BITS = 32
"""The bit-width that stands for no quantization."""

HEAD_QUANTIZER = "l1_median"
"""Quantizer of the binary head, whatever quantizer the adapter uses, as in arXiv 2307.16867."""

PRECISIONS = ("fp32", "bf16", "int8", "auto")
"""Precisions in which a frozen backbone is stored and computes; `auto` is resolved by the device."""

PACKINGS = ("coded", "raw")
"""Codes are entropy-coded where that makes the file smaller, or stored as they are."""

CONTAINERS = ("safetensors", "short")
"""Containers of adapter files (petl_bench.packing.container)."""

STATISTICS = ("exact", "short", "shortest")
"""Means and stds as float32, or in the fewest bytes or bits that leave all predictions unchanged."""

STATISTICS_OF = ("matrix", "role", "adapter")
"""Values of `statistics_of`: each matrix has a mean and std, or those of a role or an adapter share them."""


@dataclass(frozen=True)
class TaskSpec:
    """One data set as a run uses it: the facts of its manifest and, once resolved, of the files found."""

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
    shots: int = setting(
        "Few-shot sets: training images per class.", 1, value=0, before=0, least=0, most=10**6
    )
    split_seed: int = setting(
        "Few-shot sets and folder trees: number of the draw of the training images.",
        0,
        before=0,
        least=0,
        below=2**32,
        right="0 or more, and below 2**32",
        column="repetition",
    )
    drawn: int = 0
    """Images drawn from a folder tree for train and val together; else 0."""
    override: str = ""
    """Facts of the manifest that the user has overridden, as `splits.test=40`; no row then compares."""
    place: dict[str, str] = setting(
        "Paths: the folder `root` and, once resolved, `lists` and `images`; the file of `override`.",
        value=dict,
        before=dict,
        identity=False,
    )

    def __post_init__(self) -> None:
        freeze(self, "splits", "place")

    @property
    def training_images(self) -> int:
        """Return the number of images of a run's last training; 0 before the files are found."""
        return self.shots * self.classes or self.splits.get("train", 0) + self.splits.get("val", 0)


@dataclass(frozen=True)
class BackboneSpec:
    """A frozen backbone: a timm architecture and the source of its weights."""

    name: str = setting("timm architecture, for example vit_base_patch16_224.")
    weights: str = setting(
        "`pretrained`, `random`, the path of a weights file, or `bundled:FILE` for a file of the package.",
        identity=False,
    )
    image_size: int = setting(
        "Height and width of the input in pixels.", least=8, most=4096, right="8 to 4096 pixels"
    )
    options: dict[str, Any] = setting(
        "Further keyword arguments of timm.create_model.", value=dict, before=dict
    )
    label: str = setting("Name in tables; empty: the architecture's.", value="", before="", identity=False)
    normalization: str = setting(
        "Pixel normalization of the pretraining, which `train.normalization=backbone` stands for.",
        value="none",
        before="none",
        identity=False,
    )
    published: bool = setting(
        "Whether the field's published VTAB-1K and FGVC rows were made with these weights.",
        value=False,
        before=False,
        identity=False,
    )

    def __post_init__(self) -> None:
        freeze(self, "options")
        check_ranges(self, "backbone.")

    @property
    def has_dropout(self) -> bool:
        """Return whether the options ask timm for dropout or drop path."""
        return any("drop" in key and value for key, value in self.options.items())

    @property
    def display_name(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter method by name with its own settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "settings")


@dataclass(frozen=True)
class ProtocolSpec:
    """A protocol: how hyper-parameters are chosen, and when the test set is looked at."""

    name: str
    """`sealed`, `fixed` or `peek`."""
    scales: tuple[float, ...] = setting(
        "sealed: scales to try on val; empty where the scale is given.",
        value=tuple,
        before=tuple,
        above=0,
        most=1e38,
        right="positive numbers",
    )
    lrs: tuple[float, ...] = setting(
        "sealed: learning rates to try on val; empty: train.lr.",
        value=tuple,
        before=tuple,
        above=0,
        most=1e38,
        right="positive numbers",
    )
    rungs: tuple[float, ...] = setting(
        "sealed: shares of train.epochs for successive halving; empty: every candidate in full.",
        value=tuple,
        before=tuple,
    )
    every: int = setting("peek: epochs between two looks at test.", value=0, before=0, least=0, most=10**6)

    def __post_init__(self) -> None:
        freeze(self, "scales", "lrs", "rungs")
        check_ranges(self, "protocol.")
        require(self.name != "peek" or self.every >= 1, "protocol.every", self.every, "at least 1")

    @property
    def rungs_text(self) -> str:
        return " ".join(f"{share:g}" for share in self.rungs)


@dataclass(frozen=True)
class ModelSpec:
    """The part of a run that an adapter file must carry for the model to be built again."""

    backbone: BackboneSpec
    adapter: AdapterSpec
    hidden: int
    scale: float
    quantizer: str
    bits: int
    head: str
    classes: int
    float_bits: int = FLOAT_BITS
    compress: str = NOT_COMPRESSED
