"""What a measurement is: a case under a name, the sizes it runs at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from petl_bench.dev.bench.measure import Figures
from petl_bench.registry import Registry
from petl_bench.run.provenance import device_name
from petl_bench.types import BackboneSpec

_TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
HIDDEN, CLASSES = 32, 10


@dataclass(frozen=True)
class Setting:
    """How and how large everything is measured.

    Attributes:
        device: `cpu` or `cuda:0`, settled.
        threads: of torch, on the CPU.
        wanted_rounds: 0: as many as each case thinks right.
        quick: sizes that show only that everything works.
    """

    device: str = "cpu"
    threads: int = 1
    wanted_rounds: int = 0
    quick: bool = False

    def rounds(self, usual: int) -> int:
        return self.wanted_rounds or (1 if self.quick else usual)

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def backbone(self) -> BackboneSpec:
        """ViT-B/16, whole on a GPU and of 4 blocks on the CPU, or with `quick` a tiny ViT; random weights."""
        if self.quick:
            return BackboneSpec("vit_tiny_patch16_224", "random", 32, dict(_TINY))
        return BackboneSpec("vit_base_patch16_224", "random", 224, {} if self.on_gpu else {"depth": 4})

    @property
    def blocks(self) -> int:
        return int(self.backbone.options.get("depth", 12))

    @property
    def batch(self) -> int:
        return 64 if self.on_gpu and not self.quick else 8

    @property
    def steps(self) -> int:
        """Training steps in one timed call."""
        return 4 if self.on_gpu else 1

    @property
    def model(self) -> str:
        """The model in words, for notes."""
        name = "tiny ViT" if self.quick else "ViT-B/16"
        return f"{name}, {self.blocks} blocks, h={HIDDEN}"

    @property
    def size(self) -> str:
        """Model and batch in words."""
        return f"{self.model}, batch {self.batch}"


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        what: what is timed, in a line.
        target: the ratio, or where there is no reference the seconds, that is not to be exceeded; None: none.
        goal: what is hoped for beyond that.
        meaning: of the ratio, where it is not ours / reference.
    """

    name: str
    what: str
    measure: Callable[[Setting], Figures]
    target: float | None = None
    goal: float | None = None
    meaning: str = ""


CASES: Registry[Case] = Registry("measurement")


def case(
    name: str,
    what: str,
    target: float | None = None,
    goal: float | None = None,
    meaning: str = "",
) -> Callable[[Callable[[Setting], Figures]], Callable[[Setting], Figures]]:
    """Decorator that registers the function which measures `name`."""

    def register(measure: Callable[[Setting], Figures]) -> Callable[[Setting], Figures]:
        CASES.register(name)(Case(name, what, measure, target, goal, meaning))
        return measure

    return register


@dataclass(frozen=True)
class Measurement:
    """A case with what was found at a setting."""

    case: Case
    setting: Setting
    figures: Figures

    @property
    def met(self) -> bool | None:
        """Whether the target is kept; None where there is none, or at sizes it is not meant for."""
        if self.case.target is None or self.setting.quick or self.setting.on_gpu:
            return None
        value = self.figures.seconds if self.figures.ratio is None else self.figures.ratio
        return value <= self.case.target

    def to_dict(self) -> dict[str, object]:
        """The JSON object of `petl-bench bench --json`."""
        return {
            "name": self.case.name,
            "what": self.case.what,
            **asdict(self.figures),
            "unit": "seconds" if self.figures.ratio is None else self.case.meaning or "ours / reference",
            "target": self.case.target,
            "goal": self.case.goal,
            "met": self.met,
            "device": device_name(self.setting.device),
            "threads": self.setting.threads,
            "quick": self.setting.quick,
        }


def measured(case: Case, setting: Setting) -> Measurement:
    """Run one case."""
    return Measurement(case, setting, case.measure(setting))
