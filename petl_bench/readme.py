"""Put fresh tables into README.md: `python -m petl_bench.readme` after the sweeps that fill the stores.

A line `<!-- report STORE -->` begins a block and `<!-- end -->` ends it; what stands between them becomes
the markdown report of that store.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from petl_bench.config import manifests
from petl_bench.report import FORMATS, tabulate
from petl_bench.store import Store

BLOCK = re.compile(r"(<!-- report (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(text: str) -> str:
    """README text with every block's report made anew.

    Raises:
        UserError: a store that the text names is not there.
    """

    def block(match: re.Match[str]) -> str:
        tables, warnings = tabulate(Store(Path(match[2])).rows(), manifests())
        for warning in warnings:
            print(f"{match[2]}: warning: {warning}", file=sys.stderr)
        return f"{match[1]}\n{FORMATS['markdown'](tables, [])}\n{match[3]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    path = Path("README.md")
    path.write_text(refresh(path.read_text()))
