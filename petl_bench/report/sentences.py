"""Comparisons in plain English."""

from __future__ import annotations

from collections.abc import Sequence

from petl_bench.errors import counted
from petl_bench.report.labels import label
from petl_bench.report.paired import LEVEL, ROUGH
from petl_bench.report.pairs import fewer_bits
from petl_bench.report.statistics import Comparison
from petl_bench.report.t_tests import Tested
from petl_bench.report.tables import Table


def sentences(comparisons: Sequence[Comparison], table: Table) -> list[str]:
    """Describe each comparison of a table: question, numbers and verdict.

    Accuracies are in percent points, p-values are adjusted.

    Args:
        comparisons: all comparisons of the table, over which p-values were adjusted.
        table: the table.
    """
    return [_sentence(compared, table, len(comparisons)) for compared in comparisons]


def _sentence(compared: Comparison, table: Table, family: int) -> str:
    subject, baseline = _subject(compared, table)
    points = f"{100 * abs(compared.difference):.1f}"
    mean = f"accuracy is {points} points {'lower' if compared.difference < 0 else 'higher'}"
    if points == "0.0":
        mean = "accuracy differs by less than 0.1 points"
    interval = "95 % interval" if compared.tasks >= ROUGH else "approximate 95 % interval"
    counts = {"lower": compared.losses, "equal": compared.ties, "higher": compared.wins}
    return (
        f"{subject} On average over {compared.tasks} tasks, {mean} "
        f"({interval} {_points(compared.low)} to {_points(compared.high)}; "
        f"{', '.join(f'{word} on {count}' for word, count in counts.items() if count)}). "
        f"Verdict: {_finding(compared, baseline)}{_too_few(compared.tasks, family)}."
        f"{_over_seeds(compared, table)}"
    )


def _subject(compared: Comparison, table: Table) -> tuple[str, str]:
    """Return what is compared, and the name of what it is compared with."""
    row, against = compared.row, compared.against
    if not fewer_bits((row, against)):
        baseline = label(against, table)
        return f"{label(row, table)}, compared with {baseline}.", baseline
    bits, most = counted(row.key["bits"], "bit"), counted(against.key["bits"], "bit")
    name = label(row, table).replace(f", {bits}", "", 1)
    return f"{name}: {'is' if row.key['bits'] == 1 else 'are'} {bits} worse than {most}?", most


def _finding(compared: Comparison, most: str) -> str:
    within = _margin(compared)
    p, equal = _p(compared.p_holm), _p(compared.p_equivalence_holm)
    if compared.verdict == "undecided":
        return f"undecided, neither a difference ({p}) nor equivalence {within} ({equal}) is shown"
    if compared.verdict == "equivalent":
        return f"equivalent {within} on a typical task ({equal})"
    direction = "lower" if compared.effect < 0 else "higher"
    if compared.verdict == "mixed":
        return f"significantly {direction} than {most} on most tasks ({p}), but not on average"
    found = f"significantly {direction} than {most} on a typical task ({p})"
    if compared.verdict in ("worse", "better"):
        return f"{found}, and not shown to be equivalent {within}"
    return f"{found}, but equivalent {within} ({equal})"


def _over_seeds(compared: Comparison, table: Table) -> str:
    over = f"over {'paired ' if compared.paired else ''}{table.repetition}"
    return _tested(f"On these tasks alone, {over}", compared.repeated, compared) + _tested(
        "Over tasks and seeds at once, by a mixed model", compared.mixed, compared
    )


def _tested(what: str, own: Tested | None, compared: Comparison) -> str:
    if own is None:
        return ""
    within = _margin(compared)
    p, equal = _p(own.p_holm), _p(own.p_equivalence_holm)
    found = {
        "equivalent": f"equivalent {within} ({equal})",
        "undecided": f"undecided (difference {p}, equivalence {equal})",
        "worse": f"significantly lower ({p})",
        "better": f"significantly higher ({p})",
        "worse within the margin": f"significantly lower ({p}), but equivalent {within} ({equal})",
        "better within the margin": f"significantly higher ({p}), but equivalent {within} ({equal})",
    }
    interval = f"unadjusted 95 % interval {_points(own.low)} to {_points(own.high)}"
    return f" {what}: {interval}; {found[own.verdict]}."


def _too_few(tasks: int, family: int) -> str:
    """Say which findings were impossible with so few tasks, even if all of them agreed.

    The smallest possible p-value of n tasks is 1 / 2^n one-sided and twice that two-sided; Holm's method
    multiplies the smallest of a family by its size.
    """
    least = family / 2**tasks
    if 2 * least < LEVEL:
        return ""
    what = "a difference or equivalence" if least >= LEVEL else "a difference"
    among = f" among {family} comparisons" if family > 1 else ""
    return f"; {tasks} tasks are too few to show {what}{among}"


def _margin(compared: Comparison) -> str:
    return f"within ±{round(100 * compared.margin, 6)} points"  # as given: 0.25 is not 0.2


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
