"""Overrides -> plan of validated runs. The only package that knows Hydra and OmegaConf."""

from petl_bench.config.files import (
    CONF_DIR,
    description,
    group_config,
    groups,
    options,
    owner,
)
from petl_bench.config.keys import Key, keys
from petl_bench.config.origins import changed_file
from petl_bench.config.overrides import alternatives
from petl_bench.config.plan import Plan, plan
from petl_bench.config.tasks import overridden, plan_task

__all__ = [
    "CONF_DIR",
    "Key",
    "Plan",
    "alternatives",
    "changed_file",
    "description",
    "group_config",
    "groups",
    "keys",
    "options",
    "overridden",
    "owner",
    "plan",
    "plan_task",
]
