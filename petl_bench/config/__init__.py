"""Overrides -> plan of validated runs. The only package that knows Hydra and OmegaConf."""

from petl_bench.config.files import (
    CONF_DIR,
    changed,
    changed_text,
    completed,
    default,
    description,
    group_config,
    options,
)
from petl_bench.config.plan import LauncherSpec, Plan, plan
from petl_bench.config.tasks import overridden, plan_task

__all__ = [
    "CONF_DIR",
    "LauncherSpec",
    "Plan",
    "changed",
    "changed_text",
    "completed",
    "default",
    "description",
    "group_config",
    "options",
    "overridden",
    "plan",
    "plan_task",
]
