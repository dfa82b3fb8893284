"""`petl-bench data`: verification, preparation and description of data sets."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import Counter, note, print_json, say
from petl_bench.cli.data_report import print_reports, summary
from petl_bench.cli.options import JsonOption, OverrideOption, RootOption, data_settings
from petl_bench.errors import UserError, counted, did_you_mean

if TYPE_CHECKING:
    from petl_bench.data.verify import TaskReport
    from petl_bench.types import Cache, Manifest, TaskSpec

app = typer.Typer(no_args_is_help=True, help="Verify, prepare and describe data sets.")

SuiteArgument = Annotated[
    str,
    typer.Argument(metavar="SUITE", help="vtab, fgvc, or a task or pattern, e.g. vtab_cifar or 'vtab_d*'."),
]
SettingsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SETTINGS]...",
        help="Own data: settings of the sweep that choose images, e.g. data.images=500 split_seed=1.",
    ),
]
OWN_SETTINGS = ("data.images", "split_seed", "data.cache", "data.cache_gb")
"""Settings of a sweep that `data verify` and `data info` take for own data."""


@app.command("verify")
def verify(
    suite: SuiteArgument,
    root: RootOption = None,
    settings: SettingsArgument = None,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Check the files of data sets and print all problems.

    Checked are lists, numbers of images, labels, every image, and whether training and test share images. For
    own data (folder or tree), classes, sizes and modes of images and files left out are shown, for the images
    that a sweep with the same settings uses. The exit code is 1 if there is any problem.
    """
    _verify(suite, _folder(root), settings or [], override, json, decode=True)


def _folder(root: Path | None) -> Path:
    return Path(data_settings(root).folder)


def _verify(
    suite: str, root: Path, overrides: Sequence[str], override: Path | None, json: bool, decode: bool
) -> None:
    from petl_bench.config import overridden, plan_task
    from petl_bench.data import expected_files
    from petl_bench.data.verify import verify as verify_task

    manifests = _manifests(suite)
    if not root.is_dir():
        raise UserError(f"--root {root}: no such folder; --root DIR or $PETL_BENCH_DATA names another one")
    settings = data_settings(root, override)
    own = all(manifest.suite == "own" for manifest in manifests)
    if overrides and not own:
        raise UserError(f"{overrides[0]}: only own data (folder or tree) take settings here")
    reports = _whole_root(suite, root, manifests)
    if not reports:
        facts = [overridden(manifest, str(override or ""))[0] for manifest in manifests]
        specs = [plan_task(m.name, settings, *(m.shots[:1] or [1])) for m in manifests]
        cache = settings.decoded
        if overrides:
            specs, cache = _as_swept(manifests, root, overrides)
            facts = [manifest for manifest in manifests for spec in specs if spec.source == manifest.source]
        listed = [sum(known.lines for known in m.lists.values()) for m in facts]
        total = sum(lines or expected_files(spec) for lines, spec in zip(listed, specs, strict=True))
        with Counter("files", total) as counter:
            for spec, manifest in zip(specs, facts, strict=True):
                reports.append(verify_task(spec, manifest, cache, counter, decode))
    wrong = sum(len(report.problems) for report in reports)
    if json:
        for problem in (problem for report in reports for problem in report.problems):
            print_json("data-problem/1", asdict(problem))
        print_json("data-verify/1", summary(suite, root, reports))
    else:
        print_reports(reports)
    if wrong:
        note(f"{counted(wrong, 'problem')} in {root}")
        raise typer.Exit(1)


@app.command("prepare")
def prepare(
    suite: SuiteArgument,
    root: RootOption = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", help="A .zip or .tar file, or a folder of such files or of unpacked files."
        ),
    ] = None,
    from_hub: Annotated[
        str | None,
        typer.Option("--from-hub", metavar="OWNER/NAME", help="Data set repository of the Hugging Face hub."),
    ] = None,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Unpack a data set into a folder, then verify it.

    The source is either an archive that circulates (--archive) or a repository of the Hugging Face hub
    (--from-hub). Folders that are already in place are left unchanged.
    """
    from petl_bench.data.hub import prepare_from_hub
    from petl_bench.data.prepare import prepare as prepare_root

    manifests, root = _manifests(suite), _folder(root)
    if any(manifest.suite == "own" for manifest in manifests):
        raise UserError(f"{suite}: your own data need no preparation; see `petl-bench data info {suite}`")
    folders = _known_folders(manifests)
    if archive is not None and from_hub is None:
        placed = prepare_root(archive, root, folders, note)
    elif from_hub is not None and archive is None:
        placed = prepare_from_hub(from_hub, root, folders, note)
    else:
        hubs = sorted({m.about["hub"] for m in manifests if "hub" in m.about})
        known = f"; {suite} is at {', '.join(hubs)}" if hubs else ""
        raise UserError(f"give either --archive PATH or --from-hub OWNER/NAME{known}")
    note(f"placed {', '.join(placed) or 'nothing new'}; now verifying")
    _verify(suite, root, [], override, json, decode=True)


def _as_swept(
    manifests: Sequence[Manifest], root: Path, overrides: Sequence[str]
) -> tuple[list[TaskSpec], Cache]:
    """Return the tasks of own data as a sweep with these settings plans them, and its cache.

    Raises:
        UserError: a setting is unknown, does not choose images, or has a bad value.
    """
    from petl_bench.config import plan

    for setting in overrides:
        if setting.partition("=")[0] not in OWN_SETTINGS:
            raise UserError(f"{setting}: known here are {', '.join(OWN_SETTINGS)}; --root names the folder")
    tasks: dict[str, TaskSpec] = {}
    for manifest in manifests:
        planned = plan(["sweep=none", "adapter=linear", f"task={manifest.name}", *overrides])
        for run in planned.runs:
            tasks.setdefault(repr(run.task), replace(run.task, place={"root": str(root)}))
    return list(tasks.values()), planned.cache


def _known_folders(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return the folders of some tasks with the other names under which each circulates."""
    folders = {}
    for manifest in manifests:
        for names in (manifest.folders, manifest.images):
            if names:
                folders[names[0]] = names[1:]
    return folders


@app.command("info")
def info(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="Name of a task.", autocompletion=completion.tasks)
    ],
    settings: SettingsArgument = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Own data: folder to describe, without decoding images.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the manifest of a task, or describe a folder of own data.

    A manifest states the sizes, layout, preprocessing, license and origin of a data set.
    """
    from petl_bench.data import manifests

    if task not in manifests():
        raise UserError(f"unknown task {task!r}: {did_you_mean(task, manifests())}")
    if root is not None and manifests()[task].suite == "own":
        _verify(task, root, settings or [], None, json, decode=False)
        return
    if root is not None or settings:
        raise UserError(f"data info {task}: only own data (folder or tree) are described, with --root DIR")
    facts = asdict(manifests()[task])
    if json:
        print_json("data-info/1", facts)
        return
    about, lists = facts.pop("about"), facts.pop("lists")
    for key, value in {**facts, **about}.items():
        if value not in ("", [], {}, 0):
            say(f"{key:<14} {value}")
    for name, held in lists.items():
        say(f"{name:<40} {counted(held['lines'], 'line')}, SHA-256 {held['sha256']}")


def _manifests(suite: str) -> list[Manifest]:
    """Return the tasks with files of a suite, or those whose names match."""
    from petl_bench.data import manifests

    files = [manifest for manifest in manifests().values() if not manifest.fingerprint]
    found = [m for m in files if suite == m.suite or fnmatch.fnmatch(m.name, suite)]
    if not found:
        known = {m.suite for m in files} | {m.name for m in files}
        bundled = any(suite in (m.suite, m.name) for m in manifests().values())
        why = "is bundled and has no files" if bundled else "is neither a suite nor a task with files"
        raise UserError(f"{suite!r} {why}: {did_you_mean(suite, known)}")
    return found


def _whole_root(suite: str, root: Path, manifests: Sequence[Manifest]) -> list[TaskReport]:
    """Return the problem of an empty root, or of one with another suite; empty if it has neither."""
    from petl_bench.data import manifests as all_manifests
    from petl_bench.data.checks import Problem
    from petl_bench.data.verify import TaskReport

    if any(manifest.suite == "own" for manifest in manifests):
        return []
    if not any(not path.name.startswith(".") for path in root.iterdir()):
        message = (
            f"the folder is empty; `petl-bench data prepare {suite} --archive FILE --root {root}` fills it"
        )
        return [TaskReport("", [Problem("", "", "empty_folder", str(root), message)])]

    def there(found: Sequence[Manifest]) -> int:
        return sum(any((root / folder).is_dir() for folder in m.folders) for m in found)

    suites = {m.suite for m in manifests}
    others = [m for m in all_manifests().values() if m.suite not in suites]
    if there(manifests) == 0 and there(others):
        other = next(m.suite for m in others if there([m]))
        message = f"holds no folder of {suite} but those of {other}: wrong suite? `data verify {other}`"
        return [TaskReport("", [Problem("", "", "wrong_suite", str(root), message)])]
    return []
