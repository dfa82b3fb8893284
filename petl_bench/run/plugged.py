"""The plug-ins that a run uses, as its row and its adapter file state them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from petl_bench import plugins
from petl_bench.config import owner
from petl_bench.config.recipes import nearest_recipe
from petl_bench.types import RunSpec


def needed(spec: RunSpec, network: nn.Module) -> set[plugins.Plugin]:
    """Return the plug-ins without which the adapter file of a run cannot be used.

    Args:
        spec: the run.
        network: its backbone, adapted or not.
    """
    options = {"adapter": spec.adapter.name, "quantizer": spec.quantizer, "head": spec.head}
    options |= {"backbone": spec.backbone.label, "task": spec.task.name}
    tables = {"CODEBOOKS": spec.quantizer, "HEADS": spec.head, "FAMILIES": type(network).__name__}
    tables |= {"LAYOUTS": spec.task.source}
    found = [owner(group, name) for group, name in options.items()]
    found += [plugins.owner(table, name) for table, name in tables.items()]
    found += [plugins.owner("GENERATORS", spec.task.source)]
    return {plugin for plugin in found if plugin is not None}


def used(spec: RunSpec, network: nn.Module) -> set[plugins.Plugin]:
    """Return the plug-ins that a run uses: those that its file needs, and that of its recipe."""
    recipe = owner("train", nearest_recipe(spec)[0])
    return needed(spec, network) | ({recipe} if recipe is not None else set())


def stated(found: Iterable[plugins.Plugin], digest: bool = False) -> str:
    """Return plug-ins as text: name and version of each, and on demand the digest of its source."""
    return ", ".join(sorted(f"{p.label} {p.digest}" if digest else p.label for p in found))
