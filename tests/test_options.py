"""Options of all commands: one meaning has one name and one sentence, wherever it makes sense."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from petl_bench.cli import app
from tests.conftest import error_of, quickly

PAGE = Path(__file__).parent.parent / "docs" / "sweeps.md"
OTHER_MEANINGS = {
    "--bits": {"convert"},  # those of a .bin file; in `compress` those to round to
    "--classes": {"convert"},  # a number; in `show` what is added
    "--root": {"data verify", "data prepare", "data info"},  # which are about data, not about runs
    "--task": {"convert"},  # written to the file; in `eval` what is evaluated on
    "--threads": {"compress"},  # for a run, the setting launcher.threads
    "--to": {"convert"},  # other forms than `export`
}
"""Options that mean something else in some commands."""
EVERYWHERE = ("--json", "--config-dir")
"""Options of all commands."""
STORES = {"sweep", "eval", "predict", "export", "compare", "report", "show", "rerun", "inspect", "compress"}
STORES |= {"store ls", "store rm", "store merge", "store pack", "store check"}
WHERE = {
    "--store": STORES,
    "--filter": {"eval", "report", "store ls", "store rm", "store pack"},
    "--root": {"eval", "compare", "show"},
    "--override": {"eval", "data verify", "data prepare"},
    "--backbone-weights": {"eval", "predict", "export", "compress"},
    "--out": {"report", "export", "convert", "store pack", "compress"},
}
"""Commands that have an option."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield all commands with their names, such as `store ls`."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield name, command
        for word, child in getattr(command, "commands", {}).items():
            yield from below(child, f"{name} {word}".strip())

    return below(typer.main.get_command(app), "")


def table() -> dict[str, dict[str, str]]:
    """Return the sentence of each option in each command that has it."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name, command in commands():
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                found[parameter.opts[0]][name] = parameter.help
    return found


def test_an_option_of_one_meaning_has_one_sentence() -> None:
    for option, held in table().items():
        sentences = {text for name, text in held.items() if name not in OTHER_MEANINGS.get(option, ())}
        assert len(sentences) == 1, (option, held)
    sentences = [text for held in table().values() for text in {*held.values()}]
    assert len(sentences) == len({*sentences})  # nor has one sentence two names


def test_every_command_has_the_options_that_make_sense_for_it() -> None:
    found = table()
    for option, names in WHERE.items():
        assert {*found[option]} - OTHER_MEANINGS.get(option, set()) == names, option
    for option in EVERYWHERE:
        assert {*found[option]} == {name for name, _ in commands()}


def test_the_page_lists_the_options_of_several_commands() -> None:
    expected = {}
    for option, held in table().items():
        (text,) = {text for name, text in held.items() if name not in OTHER_MEANINGS.get(option, ())}
        names = [f"`{name}`" for name, own in held.items() if own == text]
        if len(names) > 1 and option not in EVERYWHERE:
            expected[option] = text, ", ".join(names)
    section = PAGE.read_text().partition("## Options of several commands")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(--[\w-]+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    lines = [f"| `{option}` | {text} | {names} |" for option, (text, names) in expected.items()]
    assert {option: (text, names) for option, text, names in listed} == expected, "\n".join(lines)


def test_errors_of_every_layer_begin_alike(tmp_path: Path) -> None:
    """The parser of the command line, Hydra's grammar, settings, data, files and stores."""
    for arguments in (
        ["sweep", "--sede", "3"],
        ["frobnicate"],
        ["report", "--format", "doc"],
        ["predict", "x.safetensors"],
        ["sweep", "task=[digits"],
        ["sweep", "bits=9"],
        ["sweep", "task=tree", "data.root=nowhere"],
        ["data", "verify", "vtab"],
        ["data", "verify", "vtab", "--root", "nowhere"],
        ["inspect", "nothing.safetensors"],
        ["predict", "nothing.safetensors", "a.jpg"],
        ["report", "--store", "nowhere"],
        ["store", "ls", "--store", "nowhere"],
        ["bench", "--threads", "-1"],
    ):
        error_of(quickly(*arguments, cwd=tmp_path))


def test_old_spellings_are_still_taken(tmp_path: Path) -> None:
    message = error_of(quickly("eval", "nothing.safetensors", "--weights", "w.npz", cwd=tmp_path))
    assert message.startswith("nothing.safetensors: ")


def test_settings_given_as_options_are_told_by_their_keys(tmp_path: Path) -> None:
    for option, key in {
        "--root": "data.root",
        "--override": "data.override",
        "--device": "launcher.device",
        "--batch-size": "train.batch_size",
        "--seed": "seed",
    }.items():
        for verb in ("sweep", "rerun"):
            message = error_of(quickly(verb, "x", option, "1", cwd=tmp_path))
            assert message.endswith(f"settings are given without dashes: {key}=VALUE"), message
