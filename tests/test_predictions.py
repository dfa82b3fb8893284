"""Predictions on test images: packed, kept with the row, checked, and compared between runs."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from petl_bench import data
from petl_bench.errors import UserError
from petl_bench.packing import Predictions, compared, unpack_predictions
from petl_bench.report.agreement import agreement
from petl_bench.store import PREDICTIONS, ROW, Store
from petl_bench.types import Cache, digest_of
from tests.conftest import error_of, json_lines, pick, quickly, rows_of
from tests.made import make_row


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The predictions of two models, the labels, and the number of classes."""
    classes, images = draw(st.sampled_from([2, 3, 256, 257, 397])), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    drawn = random.integers(0, classes, (3, images))
    drawn[:2] = np.where(random.random((2, images)) < draw(st.floats(0, 1)), drawn[2], drawn[:2])
    return drawn[0], drawn[1], drawn[2], classes


@given(outcomes())
def test_packed_predictions_are_those_of_the_model(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray, int],
) -> None:
    first, second, truth, classes = drawn
    one, other = compared(first, truth, classes), compared(second, truth, classes)
    read = unpack_predictions(one.pack(), "file")
    assert np.array_equal(read.given(truth), first)
    assert (read.images, read.classes, read.digest) == (len(first), classes, one.digest)
    assert read.accuracy == (first == truth).mean()
    assert one.differing(other) == other.differing(one) == (first != second).sum()
    assert (one.digest == other.digest) == np.array_equal(first, second)


def some_predictions() -> tuple[Predictions, np.ndarray]:
    random = np.random.default_rng(3)
    truth = random.integers(0, 10, 50)
    return compared(np.where(random.random(50) < 0.7, truth, 0), truth, 10), truth


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_cut_or_altered_file_is_refused_or_says_the_same(place: int, mask: int) -> None:
    whole, truth = some_predictions()
    data = bytearray(whole.pack())
    place %= len(data)
    data[place] ^= mask
    for wrong in (bytes(data), bytes(data[:place]), bytes(data) + b"\0"):
        with suppress(UserError):
            read = unpack_predictions(wrong, "file")
            # a bit that fills a byte
            assert np.array_equal(read.given(truth), whole.given(truth))


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<II", 4, 10) + bytes(10**7),  # a bomb
        struct.pack("<II", 2**32 - 1, 10) + bytes(100),
        struct.pack("<II", 0, 10),
        struct.pack("<II", 8, 10) + b"\xfe" + b"\x0a",  # class 10 of 10
        struct.pack("<II", 8, 10) + b"\xfe",
    ],
)
def test_content_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="damaged file of predictions"):
        unpack_predictions(zlib.compress(content), "file")


@given(outcomes())
def test_mcnemar_is_that_of_statsmodels(drawn: tuple[np.ndarray, np.ndarray, np.ndarray, int]) -> None:
    first, second, truth, classes = drawn
    found = agreement(compared(first, truth, classes), compared(second, truth, classes))
    a, b = first == truth, second == truth
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert [[found.both, found.only_a], [found.only_b, found.neither]] == table
    # statsmodels reports more than 1 where the two counts are equal
    assert found.p == pytest.approx(min(mcnemar(table, exact=True).pvalue, 1.0))


def test_mcnemar_in_closed_form() -> None:
    truth, right = np.zeros(6, np.int64), compared(np.zeros(6, np.int64), np.zeros(6, np.int64), 2)
    assert agreement(right, compared(truth + 1, truth, 2)).p == 2 * 0.5**6
    assert agreement(right, right).p == 1


# Runs


def digits(store: Store, run_id: str) -> np.ndarray:
    """The labels that come with the images."""
    return data.load(store.spec(run_id).task, "test", 32, Cache()).labels


def test_every_run_keeps_predictions_that_make_its_row(finished_store: Path) -> None:
    store, bytes_of = Store(finished_store), {True: 0, False: 0}
    for row in store.rows():
        kept = store.predictions(row.run_id)
        assert kept is not None
        assert (kept.accuracy, kept.images, kept.digest) == (row.acc, row.n_test, row.predictions)
        if row.task == "digits":
            truth = digits(store, row.run_id)
            assert (kept.given(truth) == truth).mean() == row.acc
        for path in store.directory(row.run_id).iterdir():
            bytes_of[path.name == PREDICTIONS] += path.stat().st_size
    assert bytes_of[True] < 0.1 * bytes_of[False]


def test_compare_counts_images_classes_and_confusions(finished_store: Path) -> None:
    store = Store(finished_store)
    ids = [pick(finished_store, task="digits", adapter="lora", bits=bits)["run_id"] for bits in (1, 32)]
    truth = digits(store, ids[0])
    first, second = (store.predictions(run_id).given(truth) for run_id in ids)
    done = quickly("compare", ids[0][:7], finished_store / ids[1], "--store", finished_store, "--json")
    (found,) = json_lines(done.stdout)
    assert (found["run_a"], found["run_b"], found["task"], found["images"]) == (*ids, "digits", 797)
    assert found["only_a"] == ((first == truth) & (second != truth)).sum()
    assert found["only_b"] == ((first != truth) & (second == truth)).sum()
    for number, held in enumerate(found["classes"]):
        of_class = truth == number
        assert (held["class"], held["images"]) == (number, of_class.sum())
        assert held["right_b"] == (second[of_class] == number).sum()
        assert held["only_a"] == ((first == truth) & (second != truth))[of_class].sum()
    for pair in found["confusions"]:
        shown = (truth == pair["label"]) & (first == pair["predicted"])
        assert pair["label"] != pair["predicted"]
        assert pair["images_a"] == shown.sum()
    assert sum(pair["images_b"] for pair in found["confusions"]) == (second != truth).sum()
    text = quickly("compare", *ids, "--store", finished_store).stdout
    assert f"only in A {found['only_a']}, only in B {found['only_b']}" in text
    assert f"exact McNemar test: p = {found['p']:.3g}" in text


def test_compare_names_the_classes(finished_store: Path) -> None:
    run = pick(finished_store, task="sprites_loc", adapter="lora", bits=1)["run_id"]
    other = pick(finished_store, task="sprites_loc", adapter="linear")["run_id"]
    names = data.manifests()["sprites_loc"].class_names
    text = quickly("compare", run, other, "--store", finished_store).stdout
    (found,) = json_lines(quickly("compare", run, other, "--store", finished_store, "--json").stdout)
    differ = [held["class"] for held in found["classes"] if held["only_a"] or held["only_b"]]
    assert differ
    assert all(f"{label} {names[label]} " in text for label in differ)


def test_compare_refuses_runs_on_other_images_and_runs_without_predictions(store_copy: Path) -> None:
    ids = [pick(store_copy, task=task, adapter="linear")["run_id"] for task in ("digits", "sprites_loc")]
    assert "only runs on the same data" in error_of(quickly("compare", *ids, "--store", store_copy))
    (store_copy / ids[0] / PREDICTIONS).unlink()
    assert "has kept no predictions" in error_of(quickly("compare", ids[0], ids[0], "--store", store_copy))


def test_compare_and_show_refuse_predictions_of_another_run(store_copy: Path) -> None:
    one, two = (
        pick(store_copy, task="digits", adapter=name, bits=bits)["run_id"]
        for name, bits in (("linear", 32), ("lora", 1))
    )
    shutil.copyfile(store_copy / one / PREDICTIONS, store_copy / two / PREDICTIONS)
    for arguments in (["compare", one, two], ["show", two, "--classes"]):
        message = error_of(quickly(*arguments, "--store", store_copy))
        assert f"run {two} of store {store_copy}: predictions.bin does not hold the predictions" in message


def test_eval_compares_predictions_not_accuracies_alone(store_copy: Path) -> None:
    """Another model of the same accuracy, an old row, and a run that has kept nothing."""
    row = pick(store_copy, task="digits", adapter="linear")
    run, store = store_copy / row["run_id"], Store(store_copy)

    def evaluated() -> tuple[bool, int | None]:
        (line,) = json_lines(quickly("eval", row["run_id"], "--store", store_copy, "--json").stdout)
        assert line["acc"] == line["acc_row"]
        return line["agrees"], line["predictions_differ"]

    kept = store.predictions(row["run_id"])
    other = Predictions(kept.right, (kept.wrong + 1) % 10, 10)
    (run / PREDICTIONS).write_bytes(other.pack())
    changed = row | {"predictions": other.digest}
    (run / ROW).write_text(json.dumps(changed | {"digest": digest_of(changed)}))
    assert quickly("store", "check", "--store", store_copy).returncode == 0
    text = quickly("eval", row["run_id"], "--store", store_copy).stdout
    assert f"DISAGREES with row {row['acc']:.4f}, {len(kept.wrong)} of 797 predictions differ" in text
    (run / PREDICTIONS).unlink()
    (run / ROW).write_text(json.dumps({key: value for key, value in row.items() if key != "predictions"}))
    assert evaluated() == (True, None)


def test_a_run_that_keeps_none_has_no_others_beside_its_row(store_copy: Path) -> None:
    row = pick(store_copy, task="digits", adapter="linear")
    same = ["sweep=none", "protocol=fixed", "task=digits", "adapter=linear", "train.epochs=1"]
    done = quickly(
        *("sweep", *same, "launcher=local", "launcher.predictions=false", "--store", store_copy),
        *("--existing", "rerun", "--json"),
    )
    (line,) = json_lines(done.stdout)
    assert (line["run_id"], line["predictions"]) == (row["run_id"], row["predictions"])
    assert not (store_copy / row["run_id"] / PREDICTIONS).exists()
    assert quickly("store", "check", "--store", store_copy).returncode == 0


def test_predictions_of_an_earlier_attempt_never_stand_beside_a_new_row(store_copy: Path) -> None:
    store, name = Store(store_copy), rows_of(store_copy)[0]["run_id"]
    spec, row = store.spec(name), store.row(name)
    store.put(spec, make_row(spec, 0.5, run_id=name, backbone_sha256=row.backbone_sha256), b"adapter")
    assert store.predictions(name) is None
    shutil.rmtree(store_copy / name)
