"""Where the data of stored runs are now: the option --root of commands that read data for runs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from petl_bench.cli.options import data_settings
from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.types import DataSettings, TaskSpec


@dataclass(frozen=True)
class Roots:
    """Folders of data sets that have moved.

    Attributes:
        plain: folder of all data sets that are not named; empty: where the runs state them.
        named: folders by the name of a task or suite.
    """

    plain: str = ""
    named: Mapping[str, str] | None = None

    def of(self, name: str, suite: str = "") -> str:
        """Return the folder of a task; empty if it was not given."""
        named = self.named or {}
        return named.get(name) or named.get(suite) or self.plain

    def settings(self, name: str, override: Path | None) -> DataSettings:
        """Return the `data` settings for a task that no run states."""
        folder = self.of(name)
        return data_settings(Path(folder) if folder else None, override)

    def moved(self, task: TaskSpec) -> TaskSpec:
        """Return the task of a stored run with its files in their present folder.

        A relative folder of the run is looked for below the given one first.

        Raises:
            UserError: the folder holds other data.
        """
        from petl_bench.data import resolve

        given = self.of(task.name, task.suite)
        if not given or not task.place:
            return task
        held, root = Path(task.place["root"]), Path(given)
        if not held.is_absolute() and (root / held).is_dir():
            root = root / held
        found = resolve(replace(task, place={"root": str(root)}), DataSettings().decoded)
        if found.fingerprint != task.fingerprint:
            raise UserError(f"--root {root}: holds another copy of {task.name} than the run was evaluated on")
        return found

    def lacking(self, tasks: Iterable[TaskSpec]) -> list[TaskSpec]:
        """Return the tasks of stored runs whose folders are neither given nor where the runs state them."""
        return [task for task in tasks if not self.of(task.name, task.suite) and _gone(task)]


def read_roots(texts: Collection[str] | None, tasks: Iterable[TaskSpec]) -> Roots:
    """Return the values of --root.

    Args:
        texts: the values.
        tasks: tasks of the runs concerned.

    Raises:
        UserError: a name is no task or suite, or two folders have none.
    """
    if not texts:
        return Roots()
    from petl_bench.data import manifests

    own = {name for task in tasks for name in (task.name, task.suite)}
    known = own.union(*((m.name, m.suite) for m in manifests().values()))
    named: dict[str, str] = {}
    plain = []
    for text in texts:
        name = max((name for name in known if text.startswith(f"{name}=")), key=len, default="")
        if name and text == f"{name}=":
            raise UserError(f"--root {text}: names no folder; expected {name}=DIR")
        if name in named:
            raise UserError(f"--root {text}: a folder of {name} is given already: {named[name]}")
        if name:
            named[name] = text.removeprefix(f"{name}=")
        elif "=" in text and not Path(text).is_dir():
            hint = did_you_mean(text.partition("=")[0], own or known)
            raise UserError(
                f"--root {text}: expected DIR, or NAME=DIR with the name of a task or suite; {hint}"
            )
        else:
            plain.append(text)
    if len(plain) > 1:
        raise UserError(f"--root {plain[1]}: a second folder needs the name of its data set: --root NAME=DIR")
    return Roots("".join(plain), named)


def refuse_unused(texts: Sequence[str] | None, roots: Roots, tasks: Collection[TaskSpec]) -> None:
    """Refuse values of --root that no run has a use for.

    Args:
        texts: the values.
        roots: what `read_roots` has read from them.
        tasks: tasks of the runs concerned.

    Raises:
        UserError: the data of none of them are in such a folder.
    """
    if texts and tasks and not any(task.place and roots.of(task.name, task.suite) for task in tasks):
        raise UserError(
            f"--root {texts[0]}: the data of none of these runs are in such a folder; leave it out"
        )


def in_words(lacking: Collection[TaskSpec]) -> list[str]:
    """Return a message about each data set that is not where runs state it: where it was, and what to give.

    Args:
        lacking: the task of each run concerned.
    """
    counts = Counter(
        (task.name if task.suite == "own" else task.suite, task.place["root"]) for task in lacking
    )
    found = []
    for (name, root), runs in counts.items():
        where = f"are not in {root} any more"
        if not Path(root).is_absolute():
            where = f"are in {root} of the folder where the sweep was started, which is not {Path.cwd()}"
        way_out = f"give their folder: --root {shlex.quote(name)}=DIR"
        found.append(f"the data of {name} ({counted(runs, 'run')}) {where}; {way_out}")
    return found


def _gone(task: TaskSpec) -> bool:
    """Return whether a folder of a task's files is not there."""
    return any(not Path(task.place[key]).is_dir() for key in ("lists", "images") if key in task.place)
