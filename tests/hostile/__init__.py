"""Hostile inputs, made by seed: settings out of range, edited and foreign files, and names of every byte."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.hostile import files, settings
from tests.hostile.inputs import Attempt, Place

KINDS: dict[str, Callable[[random.Random, Place], Attempt]] = {
    "setting": settings.setting,
    "grammar": settings.grammar,
    "conf": settings.conf,
    "manifest": settings.manifest,
    "override": settings.override,
    "adapter": files.adapter,
    "stored": files.stored,
    "listed": files.listed,
    "checkpoint": files.checkpoint,
    "name": files.name,
}
