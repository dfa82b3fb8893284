"""One run after another, the last one first."""

from collections.abc import Generator
from dataclasses import dataclass, replace

from petl_bench.launch import LAUNCH, local
from petl_bench.launch.base import Round
from petl_bench.types import LAUNCHERS, LauncherSettings, Outcome
from petl_bench.types.settings import setting


@LAUNCHERS.register("backwards")
@dataclass(frozen=True, kw_only=True)
class BackwardsSettings(LauncherSettings):
    """One run after another, the last one first."""

    name = "backwards"

    loudly: bool = setting("Whether to tell what it does.", False)


@LAUNCH.register("backwards")
def launch(work: Round[BackwardsSettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes."""
    if work.settings.loudly:
        work.say("the last run comes first")
    yield from local.launch(replace(work, jobs=[*reversed(work.jobs)]))
