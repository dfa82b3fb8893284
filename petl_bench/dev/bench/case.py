"""Benchmark cases, the sizes that they run at, and their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from petl_bench.dev.bench.measure import Timing
from petl_bench.device import device_name
from petl_bench.registry import Registry
from petl_bench.types import BackboneSpec

TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
HIDDEN, CLASSES = 32, 10


@dataclass(frozen=True)
class Setting:
    """Device and sizes of a benchmark.

    Attributes:
        device: `cpu` or a CUDA device such as `cuda:0`.
        threads: number of CPU threads of torch.
        wanted_rounds: number of timings of each side; 0 for the default of each case.
        quick: use tiny sizes, which only show that everything works.
        depth: number of blocks of the backbone; 0 for 4 on the CPU and 12 on a GPU.
    """

    device: str = "cpu"
    threads: int = 1
    wanted_rounds: int = 0
    quick: bool = False
    depth: int = 0

    def rounds(self, usual: int) -> int:
        """Return the number of rounds of a case whose default is `usual`."""
        return self.wanted_rounds or (1 if self.quick else usual)

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def backbone(self) -> BackboneSpec:
        """ViT-B/16 with random weights and `depth` blocks; with `quick` a tiny ViT."""
        if self.quick:
            return BackboneSpec("vit_tiny_patch16_224", "random", 32, dict(TINY))
        depth = self.depth or (12 if self.on_gpu else 4)
        return BackboneSpec("vit_base_patch16_224", "random", 224, {} if depth == 12 else {"depth": depth})

    @property
    def blocks(self) -> int:
        return int(self.backbone.options.get("depth", 12))

    @property
    def batch(self) -> int:
        return 64 if self.on_gpu and not self.quick else 8

    @property
    def steps(self) -> int:
        """Number of training steps in one timed call."""
        return 4 if self.on_gpu else 1

    @property
    def model(self) -> str:
        """Description of the model for notes."""
        name = "tiny ViT" if self.quick else "ViT-B/16"
        return f"{name}, {self.blocks} blocks, h={HIDDEN}"

    @property
    def size(self) -> str:
        """Description of model and batch size for notes."""
        return f"{self.model}, batch {self.batch}"


@dataclass(frozen=True)
class Case:
    """One benchmark.

    Attributes:
        name: name on the command line.
        what: description of the timed work.
        measure: function that times it at a setting.
        target: largest acceptable ratio, or number of seconds if there is no reference; None without a
            target.
        goal: ratio or seconds aimed at beyond the target.
        meaning: meaning of the ratio if it is not ours / reference.
    """

    name: str
    what: str
    measure: Callable[[Setting], Timing]
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
) -> Callable[[Callable[[Setting], Timing]], Callable[[Setting], Timing]]:
    """Return a decorator that registers a function as the benchmark `name`; see `Case` for the arguments."""

    def register(measure: Callable[[Setting], Timing]) -> Callable[[Setting], Timing]:
        CASES.register(name)(Case(name, what, measure, target, goal, meaning))
        return measure

    return register


@dataclass(frozen=True)
class Measurement:
    """Result of a case at a setting."""

    case: Case
    setting: Setting
    timing: Timing

    @property
    def met(self) -> bool | None:
        """True if the target is met; None without a target, or at sizes that it is not meant for."""
        if self.case.target is None or self.setting.quick or self.setting.on_gpu:
            return None
        value = self.timing.seconds if self.timing.ratio is None else self.timing.ratio
        return value <= self.case.target

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of `petl-bench bench --json`."""
        return {
            "name": self.case.name,
            "what": self.case.what,
            **asdict(self.timing),
            "unit": "seconds" if self.timing.ratio is None else self.case.meaning or "ours / reference",
            "target": self.case.target,
            "goal": self.case.goal,
            "met": self.met,
            "device": device_name(self.setting.device),
            "threads": self.setting.threads,
            "quick": self.setting.quick,
        }


def measured(case: Case, setting: Setting) -> Measurement:
    """Run one case at a setting."""
    return Measurement(case, setting, case.measure(setting))
