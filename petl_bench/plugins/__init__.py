"""Plug-ins: methods, data, recipes and more that stand outside the package. Standard library only.

A plug-in is a folder that the user names (`--config-dir`, PETL_BENCH_CONFIG), or an installed package with an
entry point of the group `petl_bench.plugins`. Its options of the configuration and its manifests join those
of the package. Its Python files are parsed to find what they register, and imported when an entry of that
registry is asked for.
"""

from petl_bench.plugins.active import (
    VARIABLE,
    active,
    blame,
    cached,
    explained,
    folders,
    keep_to,
    load,
    missing,
    owner,
    providers,
    refuse_taken,
    registering,
    require,
    use,
)
from petl_bench.plugins.folders import CONF, MANIFESTS, Plugin
from petl_bench.plugins.modules import Module

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
    "owner",
    "providers",
    "refuse_taken",
    "registering",
    "require",
    "use",
]
