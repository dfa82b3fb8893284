"""Names of recipes in reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from petl_bench.errors import DamagedError
from petl_bench.store import Store
from petl_bench.types import ResultRow


def named(results: Sequence[ResultRow], store: Path) -> Sequence[ResultRow]:
    """Return runs with the names of their recipes, which older rows lack.

    Names are needed where there are several recipes. The name of an older row is found from the spec of one
    run of its recipe; if there is none, the row stays without.

    Args:
        results: the finished runs.
        store: folder of the store that holds them.
    """
    lacking = {row.recipe: row.run_id for row in results if not row.recipe_name and row.recipe}
    if not lacking or len({row.recipe for row in results}) < 2:
        return results
    from petl_bench.config.recipes import recipe_name

    names = {row.recipe: row.recipe_name for row in results if row.recipe_name}
    for recipe, run_id in lacking.items():
        if recipe not in names:
            try:
                names[recipe] = recipe_name(Store(store).spec(run_id))
            except DamagedError:
                continue
    return [replace(row, recipe_name=row.recipe_name or names.get(row.recipe, "")) for row in results]
