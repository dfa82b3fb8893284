"""Overrides -> plan of validated runs. The only package that knows Hydra and OmegaConf."""

from petl_bench.config.files import (
    CONF_DIR,
    changed,
    changed_text,
    completed,
    description,
    group_config,
    options,
)
from petl_bench.config.keys import Key, keys
from petl_bench.config.plan import LauncherSpec, Plan, plan
from petl_bench.config.tasks import overridden, plan_task

__all__ = [
    "CONF_DIR",
    "Key",
    "LauncherSpec",
    "Plan",
    "changed",
    "changed_text",
    "completed",
    "description",
    "group_config",
    "keys",
    "options",
    "overridden",
    "plan",
    "plan_task",
]
