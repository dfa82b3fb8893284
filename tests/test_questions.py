"""`report --baseline` and `--compare`: which rows are compared, and with which numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from petl_bench.config import plan
from petl_bench.store import Store
from tests.conftest import error_of, quickly, rows_of
from tests.made import make_row

TASKS = ["digits", "surfaces", "sprites_loc", "sprites_ori", "shapes_count"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linear, and LoRA of two sizes and AdaptFormer at 1 and 32 bits on five tasks, with made-up results."""
    root = tmp_path_factory.mktemp("questions")
    of = ["sweep=none", f"task={','.join(TASKS)}", "protocol=fixed", "scale=1"]
    more = [["adapter=linear"], ["adapter=adaptformer", "bits=1,32"]]
    more += [["adapter=lora", "bits=1,32", "hidden=4,8"]]
    runs = [spec for axes in more for spec in plan([*of, *axes]).runs]
    for number, spec in enumerate(runs):
        Store(root).put(spec, make_row(spec, (number * 37 % 101) / 101), b"adapter")
    return root


def asked(store: Path, *options: str) -> list[dict[str, Any]]:
    done = quickly("report", "--store", store, "--format", "json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["comparisons"]
    return found


def name_of(key: dict[str, Any]) -> tuple[str, int, int]:
    return key["adapter"], key["hidden"], key["bits"]


def test_every_other_row_is_compared_with_the_baseline(store: Path) -> None:
    found = asked(store, "--baseline", "adapter=lora,bits=32,hidden=8")
    every = {name_of(row) for row in rows_of(store)}
    assert {name_of(c["against"]) for c in found} == {("lora", 8, 32)}
    assert {name_of(c) for c in found} == every - {("lora", 8, 32)}
    accuracy = {(*name_of(row), row["task"]): row["acc"] for row in rows_of(store)}
    for c in found:
        pairs = [(accuracy[*name_of(c), task], accuracy["lora", 8, 32, task]) for task in TASKS]
        differences = [round(own - other, 12) for own, other in pairs]  # ties of decimals are ties
        assert c["difference"] == pytest.approx(sum(differences) / 5)
        assert c["p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    smallest = min(c["p"] for c in found)
    assert min(c["p_holm"] for c in found) == pytest.approx(min(1, smallest * len(found)))  # a family of all


def test_two_rows_are_compared_in_either_direction(store: Path) -> None:
    a, b = "adapter=linear", "adapter=adaptformer,bits=1"
    (there,), (back,) = asked(store, "--compare", a, b), asked(store, "--compare", b, a)
    assert (name_of(there)[0], name_of(there["against"])) == ("linear", ("adaptformer", 16, 1))
    assert there["difference"] == pytest.approx(-back["difference"])
    assert (there["wins"], there["p"]) == (back["losses"], back["p"])
    assert there["p_holm"] == there["p"]  # nothing else is asked


def test_keys_and_values_are_those_of_filters(store: Path) -> None:
    plain = asked(store, "--compare", "adapter=lora,bits=1,hidden=4", "adapter=linear")
    same = "train.batch_size=32, adapter=glob(lor*),bits=1.0,hidden=4"
    assert asked(store, "--compare", same, "adapter=linear") == plain


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_every_form_has_the_sentences(form: str, store: Path) -> None:
    options = ("--baseline", "adapter=lora,bits=32,hidden=8")
    text = quickly("report", "--store", store, "--format", form, *options).stdout
    assert text.count(", compared with lora h8, 32 bits.") == 5
    assert text.count("lora h8: is 1 bit worse than 32 bits?") == 1
    assert "adaptformer h16: is 1 bit worse" not in text


def test_a_compressed_row_is_no_row_with_fewer_bits_of_one_that_is_not(tmp_path: Path) -> None:
    """But at 32 bits there is only one, that of which all are made."""
    of = ["sweep=none", "task=digits,surfaces", "adapter=lora", "scale=1", "protocol=fixed", "hidden=8"]
    for number, spec in enumerate(plan([*of, "bits=1,2,32", "compress=none,ptq"]).runs):
        Store(tmp_path).put(spec, make_row(spec, (number * 37 % 101) / 101), b"adapter")

    def said(*question: str) -> str:
        return quickly("report", "--store", tmp_path, "--compare", *question).stdout

    assert "bit worse" not in said("bits=1,compress=none", "bits=2,compress=ptq")
    assert "lora h8, compress ptq, compared with" not in said("bits=1,compress=ptq", "bits=2,compress=ptq")
    assert "compress ptq: is 1 bit worse than 32 bits?" in said("bits=1,compress=ptq", "bits=32")


def test_many_comparisons_with_a_baseline_are_a_table(tmp_path: Path) -> None:
    runs = plan(
        ["sweep=none", "task=digits,surfaces", "adapter=lora", "bits=1,2,4,8,32", "hidden=4,8", "scale=1"]
    )
    for number, spec in enumerate(runs.runs):
        Store(tmp_path).put(spec, make_row(spec, number / 40), b"adapter")
    options = ("--baseline", "bits=32,hidden=8", "--format", "markdown")
    text = quickly("report", "--store", tmp_path, *options).stdout
    assert text.count("**Compared with lora h8, 32 bits: differences in points") == 1
    assert "Fewer bits compared" not in text
    block = text.split("**Compared with")[1]
    assert len([line for line in block.splitlines() if line.startswith("| lora")]) == 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--baseline", "adapter=lora,bits=32"], "is 2 rows of the table, and must be one: add hidden=4 or"),
        (["--compare", "adapter=linear", "adapter=lora"], "add hidden=4,bits=1 or hidden=4,bits=32 or"),
        (["--baseline", "adapter=lorra"], "adapter=lorra: no row has it; adapter is one of: "),
        (["--baseline", "adapter=linear,bits=7"], "bits=7: no row has it"),
        (["--baseline", "adaptor=lora"], "did you mean 'adapter'"),
        (["--baseline", "lora"], "expected COLUMN=VALUE"),
        (["--baseline", ""], "expected COLUMN=VALUE"),
        (["--baseline", "adapter=linear,"], "no row has it"),
        (["--baseline", "task=digits"], "--baseline task=digits: no row has task=digits in all its runs"),
        (["--compare", "adapter=linear", "adapter=linear"], "both are the same row"),
        (["--baseline", "adapter=linear", "--tasks", "digits"], "at least 2 tasks"),
        (["--baseline", "adapter=linear", "--filter", "adapter=linear"], "no other row"),
        (["--baseline", "adapter=linear", "--compare", "bits=1", "bits=32"], "give one of them"),
    ],
)  # fmt: skip
def test_a_question_without_an_answer_is_refused(options: list[str], said: str, store: Path) -> None:
    message = error_of(quickly("report", "--store", store, *options))
    assert said in message
    assert options[0] in message


def test_rows_that_lack_tasks_are_named(store: Path, tmp_path: Path) -> None:
    for row in rows_of(store):
        if (row["adapter"], row["bits"], row["task"]) != ("adaptformer", 1, "surfaces"):
            spec = Store(store).spec(row["run_id"])
            Store(tmp_path).put(spec, make_row(spec, row["acc"]), b"adapter")
    done = quickly("report", "--store", tmp_path, "--baseline", "adapter=linear", "--format", "json")
    content = json.loads(done.stdout)
    assert ("adaptformer", 1) not in {(c["adapter"], c["bits"]) for c in content["comparisons"]}
    assert (
        "--baseline adapter=linear: 1 row without results on all tasks not compared: adaptformer h16, 1 bit"
        in content["warnings"]
    )
    question = ("--compare", "adapter=adaptformer,bits=1", "adapter=linear")
    message = error_of(quickly("report", "--store", tmp_path, *question))
    assert "adaptformer h16, 1 bit has no result on 1 task (surfaces)" in message
    advice = message.partition("--tasks ")[2].split()[0]
    (found,) = asked(tmp_path, *question, "--tasks", advice)
    assert found["tasks"] == 4


def test_results_of_different_tables_are_not_compared(store: Path, tmp_path: Path) -> None:
    for epochs, adapter in [(3, "linear"), (3, "lora"), (4, "lora")]:
        run = [
            "sweep=none",
            "task=digits,surfaces",
            f"adapter={adapter}",
            f"train.epochs={epochs}",
            "scale=1",
        ]
        for spec in plan([*run, "bits=1", "protocol=fixed"]).runs:
            Store(tmp_path).put(spec, make_row(spec, 0.5), b"adapter")
    question = ("--compare", "adapter=linear", "epochs=4")
    assert "no row has " in error_of(quickly("report", "--store", tmp_path, *question))
    done = quickly("report", "--store", tmp_path, "--baseline", "adapter=linear", "--format", "json")
    content = json.loads(done.stdout)
    assert [(c["adapter"], c["epochs"]) for c in content["comparisons"]] == [("lora", 3)]
    assert any("no row has adapter=linear" in text and "4 epochs" in text for text in content["warnings"])


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_forms_of_single_runs_say_that_they_have_no_comparisons(
    form: str, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"runs.{form}"
    done = quickly("report", "--store", store, "--baseline", "adapter=linear", "--format", form, "--out", out)
    assert f"warning: {form} holds only rows of the store; the other formats have comparisons" in done.stderr


def test_the_figure_shows_the_differences_that_were_asked_for(store: Path, tmp_path: Path) -> None:
    options = ("--compare", "adapter=lora,bits=1,hidden=4", "adapter=linear", "--plots", tmp_path)
    done = quickly("report", "--store", store, *options)
    assert done.returncode == 0, done.stderr
    svg = next(tmp_path.glob("*task-differences*.svg")).read_text()
    assert "lora h4, 1 bit minus linear" in svg
