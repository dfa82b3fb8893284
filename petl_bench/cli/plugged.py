"""The option --config-dir, which every command has: plug-ins are in use before the command begins."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench import plugins
from petl_bench.cli.common import note

ConfigDirOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config-dir",
        metavar="DIR",
        help="Folder of a plug-in, with its conf/, data_manifests/ or plugins/*.py. Repeatable. "
        f"[env var: {plugins.VARIABLE}]",
    ),
]


def add_config_dir(app: typer.Typer) -> None:
    """Give all commands of an application, and those of its groups, the option."""
    for command in _commands(app):
        assert command.callback is not None
        command.callback = _with_config_dir(command.callback)


def _commands(app: typer.Typer) -> Iterator[Any]:
    yield from app.registered_commands
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance)


def _with_config_dir(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(*arguments: Any, config_dir: list[Path] | None = None, **options: Any) -> Any:
        plugins.use(config_dir or None, lambda fault: note(f"warning: {fault}"))
        return command(*arguments, **options)

    held = inspect.signature(command, eval_str=True)
    option = inspect.Parameter(
        "config_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigDirOption
    )
    run.__signature__ = held.replace(parameters=[*held.parameters.values(), option])  # type: ignore[attr-defined]
    run.__annotations__ = {**inspect.get_annotations(command, eval_str=True), "config_dir": ConfigDirOption}
    return run
