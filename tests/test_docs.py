"""README.md, CONTRIBUTING.md and docs/: links, commands, settings and messages exist; marked blocks run.

A block is executed when the line `<!-- test -->` stands before it. The blocks of one page run one after
another in one temporary folder, and their sweeps with the settings SHORT.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
import timm
import torch
import typer

import petl_bench
from petl_bench.cli import app
from petl_bench.config import options as options_of
from petl_bench.config import plan
from petl_bench.dev import documentation
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.types import Cache
from tests import processes, trees
from tests.conftest import quickly
from tests.test_floors import FLOORS

ROOT = Path(__file__).parent.parent
TOP = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [*TOP, *sorted(ROOT.glob("docs/**/*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SHORT = {"train.epochs": "1", "launcher": "local"}
"""Settings of an executed sweep, whatever the page gives: one epoch, in the process of the test."""
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"^<!-- test -->\n+```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHERS = {"--logdir", "--head", "--scales", "--lrs", "--seeds", "--account", "--qos", "--resume"}
"""Options of other programs that the pages name."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as repository pages make them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def test_the_readme_is_short() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) <= 200
    assert len(text.encode()) <= 12_000


@pytest.mark.parametrize("name", NAMES)
def test_links_and_anchors_resolve(name: str) -> None:
    page, broken = ROOT / name, []
    for target in re.findall(r"\]\(([^()\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in slugs(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", sorted({*NAMES} - {"CHANGELOG.md", "docs/extending.md"}))
def test_files_that_pages_name_exist(name: str) -> None:
    """Paths in code spans; words in capitals stand for any name."""
    folders = "petl_bench|conf|tests|data_manifests|docs"
    named = re.findall(rf"`((?:{folders})/[\w./]+)`", FENCE.sub("", text_of(ROOT / name)))
    assert [path for path in named if not (ROOT / path).exists() and not re.search(r"[A-Z]{4}", path)] == []


def test_every_page_is_listed() -> None:
    for index in (ROOT / "docs/index.md", ROOT / "docs/methods/README.md"):
        listed = re.findall(r"\]\(([^()\s#]+)\)", text_of(index))
        pages = {page.name for page in index.parent.glob("*.md")} - {index.name}
        assert pages - set(listed) == set()


def test_nothing_points_outside_the_repository() -> None:
    """No file cites a folder or a path that only one machine has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode or not (ROOT / ".git").exists():
        pytest.skip("this tree is no git repository")
    outside = re.compile(r"guide/|seeds_[a-z]\b|\.\./shared|(?<![\w.])/(?:work|root|home/\w+)/")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or path == Path(__file__) or not path.is_file() or b"\0" in path.read_bytes()[:1024]:
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{name}:{number}" for number, line in enumerate(lines, 1) if outside.search(line)]
    assert found == []


def _joined(block: str) -> list[str]:
    """Lines of a shell block, those that end in a backslash together with the next."""
    return block.replace("\\\n", " ").splitlines()


def commands(text: str) -> Iterator[list[str]]:
    """Words of every `petl-bench ...` in fenced blocks and code spans, `petl-bench` itself left out."""
    lines = [line for kind, block in FENCE.findall(text) if kind == "sh" for line in _joined(block)]
    lines += re.findall(r"`(petl-bench [^`]+)`", FENCE.sub("", text))
    for line in lines:
        if line.startswith("petl-bench "):
            yield shlex.split(line, comments=True)[1:]


@cache
def tree() -> Any:
    return typer.main.get_command(app)


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}


def every_option(command: Any) -> set[str]:
    below = [every_option(child) for child in getattr(command, "commands", {}).values()]
    return options(command).union(*below)


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_exist(name: str) -> None:
    text, problems = text_of(ROOT / name), []
    for words in commands(text):
        command, rest = tree(), list(words)
        known = options(command)
        while rest and rest[0].startswith("--"):
            problems += [words] if rest.pop(0) not in known else []
        while rest and hasattr(command, "commands"):
            word = rest.pop(0)
            if word.isupper():
                break  # COMMAND stands for any
            if word not in command.commands:
                problems.append(words)
                break
            command = command.commands[word]
        else:
            known = options(command)
            given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
            problems += [words for option in given if option not in known]
    spans = re.findall(r"`(--[a-z][\w-]*)", FENCE.sub("", text))
    known = every_option(tree()) | OTHERS
    problems += [[option] for option in spans if option not in known]
    assert problems == []


def test_sweeps_can_be_planned() -> None:
    """Every key and value of the overrides exists. Named sweeps are planned without their axes."""
    planned = set()
    pages = [MARKED.sub("", text_of(page)) for page in PAGES]  # marked blocks run anyway
    for words in (words for text in pages for words in commands(text)):
        overrides = [word for word in words[1:] if re.match(r"[a-z_.]+=", word)]
        placeholder = any(re.search(r"=[A-Z]+$|\.\.\.", word) for word in words)
        if words[0] != "sweep" or placeholder or "adapter=sequential" in words:
            continue
        named = [word.removeprefix("sweep=") for word in overrides if word.startswith("sweep=")]
        assert set(named) <= set(options_of("sweep"))
        planned.add(("sweep=none", *(word for word in overrides if not word.startswith("sweep="))))
    assert len(planned) > 10
    for overrides in planned:
        assert plan(list(overrides)).runs, overrides


@cache
def messages() -> str:
    """Texts of all string constants of the package, also those inside f-strings."""
    found = []
    for path in Path(petl_bench.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        found += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(found)


def test_messages_of_the_troubleshooting_page_exist() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", text_of(ROOT / "docs/troubleshooting.md"), re.MULTILINE)
    assert len(rows) > 30
    parts = [part for row in rows for span in row.split("`, `") for part in span.strip("`").split("...")]
    assert [part for part in parts if part.strip() not in messages()] == []


def test_the_floors_of_the_architecture_page_are_those_of_the_test() -> None:
    rows = re.findall(r"^\| (-?\d+) \| (.+) \|$", text_of(ROOT / "docs/architecture.md"), re.MULTILINE)
    assert {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)} == FLOORS


def test_generated_blocks_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make readme` would change nothing."""
    run = SimpleNamespace(run=lambda command, env, **_: processes.run(command, env=env))
    monkeypatch.setattr(documentation, "subprocess", run)  # forks, which have the imports behind them
    files = documentation.filled(ROOT)
    stale = [
        str(path) for path, text in files.items() if path.suffix == ".md" and text_of(ROOT / path) != text
    ]
    assert stale == [], "run `make readme`"
    pictures = {path: text for path, text in files.items() if path.suffix == ".svg"}
    assert set(pictures) == {path.relative_to(ROOT) for path in (ROOT / "docs/figures").glob("*.svg")}
    for path, text in pictures.items():
        held = text_of(ROOT / path)
        (drawn_by,) = re.findall(r"Matplotlib v([\d.]+)", held)
        if drawn_by != matplotlib.__version__:
            pytest.skip(f"{path} was drawn by matplotlib {drawn_by}; this is {matplotlib.__version__}")
        assert text == held


def photos(folder: Path) -> None:
    """Images in a folder per class, as a user may have them."""
    for label, name in enumerate(["birds", "cats", "dogs"]):
        for number in range(50):
            trees.save(trees.picture(label, number, 40), folder / name / f"{number}.jpg")


def checkpoint(path: Path) -> None:
    """Weights of the model that README.md names, as a user may have saved them."""
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), path)


def shortened(words: list[str]) -> list[str]:
    """The words of a command; a sweep has the settings SHORT."""
    if words[0] != "sweep":
        return words
    others = [word for word in words if word.partition("=")[0] not in SHORT]
    return [*others, *(f"{key}={value}" for key, value in SHORT.items())]


EXTENDING = "docs/extending.md"
"""Its block needs the files that the page shows; tests.test_wheel runs it."""


def test_run_ids_on_the_pages_are_those_of_the_quick_start() -> None:
    page = text_of(ROOT / "docs/quickstart.md")
    overrides = next(words[1:] for words in commands(page) if words[0] == "sweep")
    planned = {job_of(spec).run_id for spec in resolve_tasks(plan(overrides).runs, Cache())}
    others = set(NAMES) - {"docs/reviewer.md"}  # the commands of that page are executed as written
    named = {name: set(re.findall(r"\b[0-9a-f]{12}\b", text_of(ROOT / name))) for name in others}
    assert named["docs/quickstart.md"] == planned
    assert {name: ids - planned for name, ids in named.items() if ids - planned} == {}


@pytest.mark.parametrize("name", [n for n in NAMES if MARKED.search(text_of(ROOT / n)) and n != EXTENDING])
def test_marked_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos")
    if "checkpoint.pth" in text_of(ROOT / name):
        checkpoint(tmp_path / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PETL_BENCH_CACHE", str(tmp_path / "cache"))
    for kind, block in MARKED.findall(text_of(ROOT / name)):
        if kind == "python":
            exec(compile(block, name, "exec"), {"__name__": "example"})
            continue
        assert kind == "sh"
        for words in commands(f"```sh\n{block}```"):
            done = quickly(*shortened(words), cwd=tmp_path)
            assert done.returncode == 0, (words, done.stderr)
