"""Put tables and pictures of kept results into README.md: `make readme`.

`.readme/NAME.jsonl` holds the rows of a result, as `petl-bench sweep ... --json` printed them. README.md
has blocks that end with `<!-- end -->`: one that begins with `<!-- report NAME -->` becomes that result's
markdown report, one with `<!-- table NAME HEADING -->` those of its tables whose titles begin so, one with
`<!-- figure NAME KIND -->` its figure of that kind, drawn to `.readme/NAME-KIND.svg`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from petl_bench.data import manifests
from petl_bench.errors import UserError
from petl_bench.report import FORMATS, MARGIN, Report, build
from petl_bench.report.text import markdown_tables
from petl_bench.types import row_from_dict

FOLDER = Path(".readme")
BLOCK = re.compile(r"(<!-- (report|table|figure) (\S+)(?: ([^\n]+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def made(root: Path) -> dict[Path, str]:
    """The README and its pictures as the kept results have them: path below `root` -> text.

    Raises:
        UserError: the README names a result or a figure that is not there.
    """
    files: dict[Path, str] = {}

    @cache
    def report(name: str) -> Report:
        path = root / FOLDER / f"{name}.jsonl"
        if not path.is_file():
            raise UserError(f"{path}: is not there, but README.md shows it")
        rows = [row_from_dict(json.loads(line)) for line in path.read_text().splitlines()]
        return build(rows, manifests(), MARGIN, Path("results"))

    def block(match: re.Match[str]) -> str:
        begin, what, name, kind, end = match.groups()
        if what == "report":
            return f"{begin}\n{FORMATS['markdown'](report(name), Path())!s}\n{end}"
        if what == "table":
            return f"{begin}\n{markdown_tables(report(name), kind)}\n{end}"
        found = [figure for figure in report(name).figures if figure.name.endswith(kind)]
        if len(found) != 1:
            raise UserError(f"README.md: {name} has {len(found)} figures {kind}")
        picture = FOLDER / f"{name}-{kind}.svg"
        files[picture] = found[0].svg()
        return f"{begin}\n![{found[0].description}]({picture.as_posix()})\n\n{end}"

    readme = Path("README.md")
    files[readme] = BLOCK.sub(block, (root / readme).read_text(encoding="utf-8"))
    return files


if __name__ == "__main__":
    for path, text in made(Path()).items():
        path.write_text(text, encoding="utf-8")
