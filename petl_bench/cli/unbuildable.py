"""Models that cannot be built: combinations that a sweep leaves out by name, and settings that it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from petl_bench.backbones import weights
from petl_bench.cli.common import note, waiting
from petl_bench.errors import UserError, counted
from petl_bench.types import RunSpec, changed_text


def unbuildable(runs: Mapping[str, RunSpec], planned: int) -> Collection[str]:
    """Return the runs whose method needs parts that their backbone lacks, after a warning for each method.

    Backbones with bundled weights are vision transformers, which have all parts.

    Args:
        runs: runs to be executed, by run_id.
        planned: number of runs of the whole sweep.

    Raises:
        UserError: no run of the sweep can be built.
    """
    doubtful = {i: spec for i, spec in runs.items() if not weights.bundled(spec.backbone.weights)}
    if not doubtful:
        return ()
    from petl_bench.launch.preflight import unsuitable

    reasons = unsuitable(doubtful.values())
    lost = [i for i, spec in doubtful.items() if spec in reasons]
    counts = Counter(
        (spec.adapter.name, spec.backbone.display_name, reasons[spec])
        for spec in doubtful.values()
        if spec in reasons
    )
    for (adapter, backbone, reason), count in counts.items():
        if len(lost) == planned:
            raise UserError(f"adapter={adapter} on backbone {backbone}: {reason}")
        note(f"warning: {counted(count, 'run')} of {adapter} on {backbone} left out: {reason}")
    return lost


def check_buildable(specs: Iterable[RunSpec]) -> None:
    """Refuse settings of methods as the sweep would, without weights or data.

    Only models of methods with changed settings are built, and compressed ones: that takes seconds.

    Raises:
        UserError: a model cannot be built.
    """
    asked = [spec for spec in specs if changed_text(spec.adapter) or spec.compressed]
    if asked:
        with waiting("loading torch"):
            from petl_bench.launch.preflight import refused
        for reason in refused(asked).values():
            raise UserError(reason)
