"""Fill the generated blocks of README.md and docs/: `make readme`.

A generated block begins with `<!-- KIND ARGUMENTS -->` and ends with `<!-- end -->`. Whatever stands between
the two is replaced. `KINDS` maps each kind to the function that makes its text:

    report NAME             the Markdown report of the results in `.readme/NAME.jsonl`
    table NAME HEADING      those tables of that report whose titles begin with HEADING
    figure NAME KIND        its figure of that kind, drawn to `docs/figures/NAME-KIND.svg`
    compare NAME PAIRS      comparisons of pairs of rows, `A B; C D`, each by columns `adapter=lora,bits=1`
    by_size NAME WHICH      its rows, smallest file first: `all`, the Pareto `front`, or by columns
    changed NAME            its rows beside the one from which each differs in one setting
    search NAME ADAPTER     accuracies of settings of a method on held-out training images
    output ARGUMENTS        what `petl-bench ARGUMENTS` prints
    settings GROUP          the settings whose keys begin with GROUP; `run`: those without a prefix
    suite NAME              the tasks of a suite: what they ask for, and how well they can be learned
    method_settings NAMES   the settings of adapter methods, with their defaults
    method_sizes NAMES      trainable parameters and bytes of adapter methods
    method_tuned NAMES      scales and learning rates of adapter methods in conf/tuned/pocket.yaml
    method_published NAMES  scales of adapter methods in conf/tuned/vtab.yaml
    peft_sizes TITLE        bytes of methods here and in files of Hugging Face peft; the title is not shown
    method_index FOLDER     all adapter methods, with links to their pages in FOLDER

`.readme/NAME.jsonl` holds rows as `petl-bench sweep ... --json` prints them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petl_bench.config.keys import keys
from petl_bench.data import manifests
from petl_bench.dev.chosen_rows import by_size, changed_one_at_a_time, compared
from petl_bench.dev.method_tables import (
    index_table,
    published_table,
    settings_table,
    sizes_table,
    tuned_table,
)
from petl_bench.dev.peft_sizes import sizes_beside_peft
from petl_bench.dev.search import table
from petl_bench.errors import UserError
from petl_bench.report import FORMATS, MARGIN, Report, build
from petl_bench.report.text import markdown_tables
from petl_bench.types import LAUNCHERS, LauncherSettings, Setting, declarations, row_from_dict
from petl_bench.types.settings import UNSET

RESULTS = Path(".readme")
FIGURES = Path("docs/figures")
WIDTH = "100"
"""Columns of the terminal for which `output` blocks are printed."""


@dataclass
class Documentation:
    """The pages below a root folder while their blocks are being filled.

    Attributes:
        root: folder that holds README.md, docs/ and the kept results.
        reports: reports of kept results, by name; each is built once.
        files: generated files, path below `root` -> text.
    """

    root: Path
    reports: dict[str, Report] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)

    def report(self, name: str) -> Report:
        """Return the report of a kept result.

        Raises:
            UserError: the result does not exist.
        """
        if name not in self.reports:
            path = self.root / RESULTS / f"{name}.jsonl"
            if not path.is_file():
                raise UserError(f"{path}: no such file, but the documentation shows this result")
            held = [json.loads(line) for line in path.read_text().splitlines()]
            rows = [row_from_dict({k: v for k, v in row.items() if k != "schema"}) for row in held]
            self.reports[name] = build(rows, manifests(), MARGIN, Path("results"))
        return self.reports[name]

    def pages(self) -> list[Path]:
        """Return the paths of all pages below the root, README.md first."""
        docs = sorted(path.relative_to(self.root) for path in self.root.glob("docs/**/*.md"))
        return [Path("README.md"), *docs]


def _report(documentation: Documentation, page: Path, arguments: str) -> str:
    return str(FORMATS.get("markdown")(documentation.report(arguments), Path()))


def _table(documentation: Documentation, page: Path, arguments: str) -> str:
    name, _, heading = arguments.partition(" ")
    return markdown_tables(documentation.report(name), heading)


def _figure(documentation: Documentation, page: Path, arguments: str) -> str:
    name, _, kind = arguments.partition(" ")
    found = [figure for figure in documentation.report(name).figures if figure.name.endswith(kind)]
    if len(found) != 1:
        raise UserError(f"{page}: result {name} has {len(found)} figures {kind}, one is needed")
    picture = FIGURES / f"{name}-{kind}.svg"
    documentation.files[picture] = found[0].svg()
    link = Path(os.path.relpath(picture, page.parent)).as_posix()
    return f"![{found[0].description}]({link})\n"


def _compare(documentation: Documentation, page: Path, arguments: str) -> str:
    name, _, pairs = arguments.partition(" ")
    return compared(documentation.report(name), pairs)


def _by_size(documentation: Documentation, page: Path, arguments: str) -> str:
    name, _, which = arguments.partition(" ")
    return by_size(documentation.report(name), which)


def _changed(documentation: Documentation, page: Path, arguments: str) -> str:
    return changed_one_at_a_time(documentation.report(arguments))


def _search(documentation: Documentation, page: Path, arguments: str) -> str:
    name, adapter = arguments.split()
    held = map(json.loads, (documentation.root / RESULTS / f"{name}.jsonl").read_text().splitlines())
    titles, *rows = table(
        (line for line in held if line["adapter"] == adapter),
        {name: task.group for name, task in manifests().items()},
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["--:"] * len(titles), *rows]) + "\n"


def _output(documentation: Documentation, page: Path, arguments: str) -> str:
    command = [sys.executable, "-c", "from petl_bench.cli import main; main()", *arguments.split()]
    environment = {**os.environ, "COLUMNS": WIDTH, "TERM": "dumb"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{page}: petl-bench {arguments} failed: {done.stderr.strip()}")
    text = done.stdout.replace("Usage: -c ", "Usage: petl-bench ")
    return f"```text\n{text.strip()}\n```\n"


def _settings(documentation: Documentation, page: Path, arguments: str) -> str:
    lines = ["| Key | Default | Meaning | Allowed values |", "| :-- | :-- | :-- | :-- |"]
    for name, default, known in _declared(arguments):
        text = str(default).lower() if isinstance(default, bool) else default
        shown = "" if default in (None, UNSET) else "empty" if default == "" else f"`{text}`"
        lines.append(f"| `{name}` | {shown} | {known.help} | {known.right} |")
    return "\n".join(lines).replace(" |  |", " | |") + "\n"


def _declared(group: str) -> Iterator[tuple[str, Any, Setting]]:
    """Yield key, default and declaration of the settings of a group; see the top of this file."""
    kind, _, name = group.partition(".")
    if kind == "launcher":
        common = declarations(LauncherSettings)
        own = declarations(LAUNCHERS.get(name)) if name else common
        yield from (
            (f"launcher.{key}", known.default, known)
            for key, known in own.items()
            if not name or known is not common.get(key)
        )
    else:
        for key in keys():
            if (key.name.partition(".")[0] if "." in key.name else "run") == group:
                yield key.name, key.default, key.setting


def _suite(documentation: Documentation, page: Path, arguments: str) -> str:
    tasks = sorted((m for m in manifests().values() if m.suite == arguments), key=lambda task: task.position)
    lines = [
        "| Task | Group | Classes | Question | Plain network, 10,000 images (%) |",
        "| :-- | :-- | --: | :-- | --: |",
    ]
    for task in tasks:
        asks, bound = task.about["asks"], task.about["upper_bound"]
        lines.append(f"| `{task.name}` | {task.group} | {task.classes} | {asks} | {bound} |")
    return "\n".join(lines) + "\n"


Kind = Callable[[Documentation, Path, str], str]
"""Documentation, path of the page and arguments of a block -> its Markdown text."""

KINDS: Mapping[str, Kind] = {
    "report": _report,
    "table": _table,
    "figure": _figure,
    "compare": _compare,
    "by_size": _by_size,
    "changed": _changed,
    "search": _search,
    "output": _output,
    "settings": _settings,
    "suite": _suite,
    "method_settings": lambda documentation, page, names: settings_table(names.split()),
    "method_sizes": lambda documentation, page, names: sizes_table(names.split()),
    "method_published": lambda documentation, page, names: published_table(names.split()),
    "method_tuned": lambda documentation, page, names: tuned_table(names.split()),
    "peft_sizes": lambda documentation, page, title: sizes_beside_peft(documentation.root),
    "method_index": lambda documentation, page, folder: index_table(documentation.root / folder),
}
_BLOCK = re.compile(
    rf"(?P<begin><!-- (?P<kind>{'|'.join(KINDS)}) (?P<arguments>[^\n]+?) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def filled(root: Path) -> dict[Path, str]:
    """Return every page and picture with its generated parts up to date.

    Args:
        root: folder that holds README.md, docs/ and the kept results.

    Returns:
        Path below `root` -> text.

    Raises:
        UserError: a block names a result, figure or command that does not exist.
    """
    documentation = Documentation(root)
    for page in documentation.pages():

        def block(match: re.Match[str], page: Path = page) -> str:
            text = KINDS[match["kind"]](documentation, page, match["arguments"])
            return f"{match['begin']}\n{text}\n{match['end']}"

        documentation.files[page] = _BLOCK.sub(block, (root / page).read_text(encoding="utf-8"))
    return documentation.files


if __name__ == "__main__":
    for path, text in filled(Path()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
