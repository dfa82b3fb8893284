"""What a comparison says, in plain English."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl_bench.errors import counted
from petl_bench.report.columns import label
from petl_bench.report.paired import LEVEL, ROUGH
from petl_bench.report.tables import Table

if TYPE_CHECKING:
    from petl_bench.report.statistics import Comparison


def sentence(compared: Comparison, table: Table, family: int) -> str:
    """Question, numbers and verdict; accuracies in points, p-values adjusted.

    Args:
        family: number of comparisons in the table.
    """
    line, against = compared.line, compared.against
    bits, most = counted(line.key["bits"], "bit"), counted(against.key["bits"], "bit")
    name = label(line, table).replace(f", {bits}", "", 1)
    verb = "is" if line.key["bits"] == 1 else "are"
    points = f"{100 * abs(compared.difference):.1f}"
    mean = f"accuracy is {points} points {'lower' if compared.difference < 0 else 'higher'}"
    if points == "0.0":
        mean = "accuracy differs by less than 0.1 points"
    interval = "95 % interval" if compared.tasks >= ROUGH else "rough 95 % interval"
    counts = {"lower": compared.losses, "equal": compared.ties, "higher": compared.wins}
    return (
        f"{name}: {verb} {bits} worse than {most}? "
        f"Over {compared.tasks} tasks {mean} on average "
        f"({interval} {_points(compared.low)} to {_points(compared.high)}; "
        f"{', '.join(f'{word} on {count}' for word, count in counts.items() if count)}): "
        f"{_finding(compared, most)}{_too_few(compared.tasks, family)}.{_by_seeds(compared, table)}"
    )


def _finding(compared: Comparison, most: str) -> str:
    within = f"±{round(100 * compared.margin, 6)} points"  # as given: 0.25 is not 0.2
    p, equal = _p(compared.p_holm), _p(compared.p_equivalence_holm)
    if compared.verdict == "undecided":
        numbers = f"{p} and {equal.removeprefix('p = ')}"
        return f"undecided: neither a difference nor equivalence within {within} is shown ({numbers})"
    if compared.verdict == "equivalent":
        return f"equivalent within {within} on a typical task ({equal})"
    direction = "lower" if compared.effect < 0 else "higher"
    if compared.verdict == "mixed":
        return f"{direction} than {most} on most tasks by more than chance explains ({p}), but not on average"
    found = f"{direction} than {most} on a typical task, by more than chance explains ({p})"
    if compared.verdict in ("worse", "better"):
        return f"{found}, and not shown to be within {within}"
    return f"{found}, yet within {within} ({equal})"


def _by_seeds(compared: Comparison, table: Table) -> str:
    own = compared.repeated
    if own is None:
        return ""
    within = f"±{round(100 * compared.margin, 6)} points"
    p, equal = _p(own.p_holm), _p(own.p_equivalence_holm)
    found = {
        "equivalent": f"equivalent within {within} ({equal})",
        "undecided": f"undecided ({p}, and {equal.removeprefix('p = ')} for equivalence)",
        "worse": f"lower ({p})",
        "better": f"higher ({p})",
        "worse within the margin": f"lower ({p}), yet within {within} ({equal})",
        "better within the margin": f"higher ({p}), yet within {within} ({equal})",
    }
    interval = f"unadjusted 95 % interval {_points(own.low)} to {_points(own.high)}"
    return f" Of these very tasks, over {table.repetition}: {interval}, {found[own.verdict]}."


def _too_few(tasks: int, family: int) -> str:
    """What these tests could not show of so many tasks, had even all of them pointed the same way.

    The smallest p-value of n tasks is 1 / 2^n one-sided and twice that two-sided; Holm multiplies the
    smallest of a family by its size.
    """
    least = family / 2**tasks
    if 2 * least < LEVEL:
        return ""
    what = "a difference or equivalence" if least >= LEVEL else "a difference"
    among = f" among {family} comparisons" if family > 1 else ""
    return f"; {tasks} tasks are too few to show {what}{among}"


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
