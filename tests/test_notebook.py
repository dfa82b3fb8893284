"""`petl_bench.sweep`, `rows` and `make_report`: they give what the commands give."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

import petl_bench
from tests.conftest import quickly, rows_of


def test_rows_are_those_of_the_store(finished_store: Path) -> None:
    found = petl_bench.rows(finished_store)
    held = {row["run_id"]: row for row in rows_of(finished_store)}
    assert {*found.run_id} == {*held}
    for row in found.to_dict("records"):
        expected = held[row["run_id"]]
        for name in ("task", "adapter", "bits", "acc", "bytes_file", "seed"):
            assert row[name] == expected[name]
    chosen = petl_bench.rows(finished_store, filters=["adapter=lora", "bits=1"], tasks="digits")
    assert [(row.adapter, row.bits, row.task) for row in chosen.itertuples()] == [("lora", 1, "digits")]


def test_lists_are_what_texts_are(finished_store: Path) -> None:
    one = petl_bench.rows(finished_store, filters="bits=1", tasks="digits,sprites_loc")
    assert one.equals(petl_bench.rows(finished_store, filters=["bits=1"], tasks=["digits", "sprites_loc"]))
    pair = ["adapter=lora,bits=1", "adapter=linear"]
    assert petl_bench.make_report(finished_store, compare=pair) == petl_bench.make_report(
        finished_store, compare=(pair[0], pair[1])
    )
    with pytest.raises(petl_bench.UserError, match="unknown task 'nothing'"):
        petl_bench.sweep(["task=nothing", "bits=1"])


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (petl_bench.rows, {"filters": {"bits": 1}}),
        (petl_bench.rows, {"filters": [("bits", 1)]}),
        (petl_bench.rows, {"filters": 1}),
        (petl_bench.rows, {"tasks": 1}),
        (petl_bench.rows, {"store": None}),
        (petl_bench.make_report, {"compare": "adapter=lora"}),
        (petl_bench.make_report, {"margin": "1"}),
        (petl_bench.sweep, {"overrides": 3}),
        (petl_bench.sweep, {"overrides": {"task": "digits"}}),
        (petl_bench.sweep, {"store": 3}),
    ],
)
def test_what_is_no_text_is_refused_by_name(
    function: Any, arguments: dict[str, Any], finished_store: Path
) -> None:
    """Other types than those of the documentation, which a notebook gives easily."""
    named = {name: value for name, value in arguments.items() if name != "overrides"}
    own = {"store": finished_store} | named
    (name,) = arguments
    with pytest.raises(petl_bench.UserError, match=f"^{name}="):
        function(*(value for value in arguments.values() if name == "overrides"), **own)


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json", "html"])
def test_a_report_is_what_the_command_writes(
    format: str, finished_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # links of pages are relative to their folder
    out = tmp_path / "out"
    options = [
        "--format",
        format,
        "--baseline",
        "adapter=linear",
        "--margin",
        "2",
        "--tasks",
        "digits,sprites_loc",
    ]
    done = quickly("report", "--store", finished_store, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    made = petl_bench.make_report(
        finished_store, format, baseline="adapter=linear", margin=2, tasks="digits,sprites_loc"
    )
    assert made == out.read_text()


def test_parquet_is_read_by_pandas(finished_store: Path) -> None:
    data = petl_bench.make_report(finished_store, "parquet")
    assert isinstance(data, bytes)
    assert len(pandas.read_parquet(io.BytesIO(data))) == len(rows_of(finished_store))


def test_a_sweep_returns_the_rows_of_its_runs_and_skips_what_is_done(
    finished_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store holds 10 runs, and 4 of them are those of this sweep."""
    overrides = ["task=digits,sprites_loc", "adapter=lora", "bits=1,32", "train.epochs=1"]
    found = petl_bench.sweep(*overrides, store=finished_store)
    assert "4 runs: 4 in store" in capsys.readouterr().err
    assert {*found.adapter} == {"lora"}
    assert sorted(zip(found.task, found.bits, strict=True)) == [
        ("digits", 1),
        ("digits", 32),
        ("sprites_loc", 1),
        ("sprites_loc", 32),
    ]


def test_a_sweep_trains(tmp_path: Path) -> None:
    settings = ["task=digits", "adapter=linear", "train.epochs=1", "launcher=local"]
    found = petl_bench.sweep(*settings, store=tmp_path / "store")
    assert [*found.run_id] == [row["run_id"] for row in rows_of(tmp_path / "store")]
    assert found.acc[0] > 0.2  # ten classes


def test_mistakes_are_user_errors(finished_store: Path, tmp_path: Path) -> None:
    for call, expected in (
        (lambda: petl_bench.sweep("rank=3", store=tmp_path / "s"), "did you mean 'hidden'"),
        (lambda: petl_bench.sweep("task=digits", existing="skipp", store=tmp_path / "s"), "'skip'"),
        (lambda: petl_bench.rows(tmp_path / "s"), "no such directory"),
        (lambda: petl_bench.rows(finished_store, filters=["bits=7"]), "bits=7"),
        (lambda: petl_bench.make_report(finished_store, "htm"), "'html'"),
        (lambda: petl_bench.make_report(finished_store, margin=0), "--margin 0"),
    ):
        with pytest.raises(petl_bench.UserError, match=expected):
            call()
    assert not (tmp_path / "s").exists()


def test_a_program_sweeps_in_other_processes_without_being_started_again(tmp_path: Path) -> None:
    """The program is a file as a user writes it, without `if __name__ == "__main__"`, in a new process."""
    program = tmp_path / "program.py"
    program.write_text(
        "import petl_bench\n"
        "print('begin')\n"
        "found = petl_bench.sweep('task=digits', 'adapter=linear', 'train.epochs=1', 'launcher.workers=1')\n"
        "print(len(found))\n"
    )
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, "begin\n1\n"), done.stderr
