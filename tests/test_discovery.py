"""Names and keys: `ls`, `sweep --cfg`, suggestions, completion, and combinations that cannot be built."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from petl_bench.adapters import ADAPTERS
from petl_bench.cli import completion
from petl_bench.config import keys, options
from petl_bench.config.keys import OTHER_WORDS, suggested
from petl_bench.types import spec_from_dict, spec_to_dict
from tests.conftest import json_lines, quickly

LOWFORMER = ["backbone=timm", "backbone.name=lowformer_b0", "backbone.weights=random"]
LOWFORMER += ["backbone.image_size=32", "task=digits", "scale=1", "bits=1", "train.epochs=1"]
LOWFORMER += [
    "backbone.options={width_list:[8,8,8,30,30],depth_list:[0,0,0,1,1],head_widths:[16,24]}",
    "launcher=local",
]
"""A small backbone whose blocks have no linears."""
KEYS = {known.name for known in keys()} | {"adapter", "backbone", "task", "sweep"}


def test_words_of_other_programs_lead_to_a_key() -> None:
    assert {*OTHER_WORDS.values()} <= KEYS
    assert not {*OTHER_WORDS} & KEYS
    for word, key in OTHER_WORDS.items():
        assert suggested(word, KEYS) == suggested(f"train.{word.upper()}", KEYS) == f"did you mean '{key}'?"


def test_the_last_part_of_a_key_leads_to_it() -> None:
    named = Counter(key.rpartition(".")[2] for key in KEYS)
    for key in KEYS:
        word = key.rpartition(".")[2]
        if word not in {*KEYS, *OTHER_WORDS} and named[word] <= 4:
            assert f"'{key}'" in suggested(word, KEYS)


def test_an_unknown_key_is_refused_with_the_one_that_was_meant() -> None:
    for override, meant in (("rank=4", "hidden"), ("lr=1", "train.lr"), ("bitz=1", "bits")):
        done = quickly("sweep", override)
        assert done.returncode == 2
        assert f"unknown key '{override.partition('=')[0]}': did you mean '{meant}'?" in done.stderr


def test_the_configuration_of_a_run_is_printed_as_it_is_resolved(tmp_path: Path) -> None:
    """The printed YAML is the spec of the run that the sweep would execute, scale of conf/tuned included."""
    arguments = [
        "sweep",
        "task=digits",
        "adapter=lora",
        "bits=1,4",
        "train.epochs=7",
        "--store",
        tmp_path / "s",
    ]
    done = quickly(*arguments, "--cfg")
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load(done.stdout)
    assert (values["train"]["epochs"], values["bits"], values["adapter"]["name"]) == (7, 1, "lora")
    assert values["scale"] > 0
    assert "they differ in bits" in done.stderr
    lines = json_lines(quickly(*arguments, "--cfg", "--json").stdout)
    assert [line["bits"] for line in lines] == [1, 4]
    held = {name: value for name, value in lines[0].items() if name != "run_id"}
    assert held == values == json.loads(json.dumps(spec_to_dict(spec_from_dict(held))))
    plan = [
        json.loads(line)["run_id"] for line in quickly(*arguments, "--dry-run", "--json").stdout.splitlines()
    ]
    assert [line["run_id"] for line in lines] == plan
    assert not (tmp_path / "s").exists()
    both = quickly(*arguments, "--cfg", "--dry-run")
    assert (both.returncode, "give one of them" in both.stderr) == (2, True)


def test_ls_finds_names_by_a_part_of_them() -> None:
    names = [line.split()[0] for line in quickly("ls", "keys", "lr").stdout.splitlines()]
    assert {"train.lr", "train.warmup_lr", "protocol.lrs"} <= {*names}
    assert all("lr" in name for name in names)
    assert quickly("ls", "tasks", "vtab_dt*").stdout.startswith("vtab_dtd ")


def test_combinations_that_cannot_be_built_are_left_out_by_name(tmp_path: Path) -> None:
    arguments = ["sweep", *LOWFORMER, "--store", tmp_path / "store"]
    planned = quickly(*arguments, "adapter=lora,adaptformer", "seed=0,1", "--dry-run", "--json")
    assert planned.returncode == 0
    assert planned.stderr.startswith(
        "warning: 2 runs of lora on lowformer_b0 left out: this adapter needs a "
    )
    runs: list[dict[str, Any]] = [json.loads(line) for line in planned.stdout.splitlines()]
    assert {run["adapter"] for run in runs} == {"adaptformer"}
    assert len(runs) == 2
    for dry in (["--dry-run"], []):
        alone = quickly(*arguments, "adapter=lora", *dry)
        assert alone.returncode == 2
        assert alone.stderr.startswith("error: adapter=lora on backbone lowformer_b0: this adapter")
    assert not (tmp_path / "store").exists()


def test_a_sweep_with_such_a_combination_runs_the_others_and_exits_with_1(tmp_path: Path) -> None:
    done = quickly("sweep", *LOWFORMER, "adapter=lora,adaptformer", "--store", tmp_path / "store")
    assert done.returncode == 1, done.stderr
    assert "1 run of lora on lowformer_b0 left out" in done.stderr
    assert "2 runs" not in done.stderr
    again = quickly("sweep", *LOWFORMER, "adapter=lora,adaptformer", "--store", tmp_path / "store")
    assert again.returncode == 1
    assert "1 run: 1 in store" in again.stderr
    rows = quickly("report", "--store", tmp_path / "store", "--format", "json").stdout
    assert "adaptformer" in rows
    assert "lora" not in rows


def test_overrides_are_completed() -> None:
    assert completion.overrides("train.warm") == ["train.warmup_epochs=", "train.warmup_lr="]
    assert completion.overrides("adapter=dyl") == ["adapter=dylora"]
    assert {*completion.overrides("adapter=")} == {f"adapter={name}" for name in options("adapter")}
    assert {*options("adapter")} >= {*ADAPTERS}
    assert completion.overrides("adapter=dylora,dy") == []
    assert "adapter=lora,linear" in completion.overrides("adapter=lora,l")
    assert completion.overrides("bits=1") == []
    assert completion.tasks("vtab_dt") == ["vtab_dtd"]


PROGRAM = Path(sys.executable).with_name("petl-bench")


def read_until(keyboard: int, text: str) -> None:
    """Read what a terminal shows until a text is there, for a minute at most."""
    shown = b""
    while text.encode() not in shown:
        assert select.select([keyboard], [], [], 60)[0], shown
        shown += os.read(keyboard, 4096)


@pytest.mark.skipif(not PROGRAM.exists() or shutil.which("bash") is None, reason="needs bash and the command")
def test_bash_completes_values_behind_an_equals_sign(tmp_path: Path) -> None:
    """In an interactive bash, which takes `task=shapes_c` for three words, by the command's own script."""
    # What `petl-bench --show-completion` prints in bash; below make the shell that it would look for is sh.
    asked = os.environ | {"_PETL_BENCH_COMPLETE": "source_bash"}
    script = subprocess.run([PROGRAM], capture_output=True, check=True, env=asked).stdout
    (tmp_path / "completion.sh").write_bytes(script)
    own = {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    shell = ["bash", "--norc", "--noprofile", "-i"]
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        shell, stdin=terminal, stdout=terminal, stderr=terminal, cwd=tmp_path, env=os.environ | own
    ) as process:
        try:
            # What is typed before bash is ready for it is taken literally.
            for shown, typed in (
                ("$ ", "source ./completion.sh; echo loaded\n"),
                ("\nloaded\r\n$ ", "petl-bench sweep adapter=lora,rep\t"),
                ("lora,repadapter ", "task=shapes_c\t"),
                ("shapes_count ", "\x01echo \x05> done\nexit\n"),  # Ctrl-A, Ctrl-E: the line is only printed
            ):
                read_until(keyboard, shown)
                os.write(keyboard, typed.encode())
            process.wait(timeout=60)
        finally:
            process.kill()
    os.close(keyboard)
    os.close(terminal)
    completed = "petl-bench sweep adapter=lora,repadapter task=shapes_count"
    assert (tmp_path / "done").read_text().split() == completed.split()


def test_run_ids_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completion.runs("") == []
    for name in ("0123456789ab", "abcdef012345"):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert completion.runs("ab") == ["abcdef012345"]
