"""Plug-ins: methods, data, recipes and more that stand outside the package. Standard library only.

A plug-in is a folder that the user names (`--config-dir`, PETL_BENCH_CONFIG), or an installed package with an
entry point of the group `petl_bench.plugins`. Its options of the configuration and its manifests join those
of the package. Its Python files are parsed to find what they register, and imported when an entry of that
registry is asked for.
"""

from petl_bench.plugins.active import (
    active,
    blame,
    cached,
    explained,
    folders,
    keep_to,
    load,
    origin,
    owner,
    providers,
    refuse_taken,
    registering,
    use,
)
from petl_bench.plugins.folders import CONF, MANIFESTS, VARIABLE, Plugin
from petl_bench.plugins.modules import Module
from petl_bench.plugins.needed import missing, require

__all__ = [
    "CONF",
    "MANIFESTS",
    "VARIABLE",
    "Module",
    "Plugin",
    "active",
    "blame",
    "cached",
    "explained",
    "folders",
    "keep_to",
    "load",
    "missing",
    "origin",
    "owner",
    "providers",
    "refuse_taken",
    "registering",
    "require",
    "use",
]
