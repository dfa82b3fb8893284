"""A finished store in TensorBoard: what its own readers, and the backend of its HPARAMS page, find there."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from petl_bench.config import plan
from petl_bench.types import readable_folder
from tests.conftest import events_of, quickly, rows_of


def hparams_page(store: Path) -> dict[str, tuple[str, dict[str, Any], dict[str, float]]]:
    """run_id -> readable name, settings and metrics of its line on the HPARAMS page."""
    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(store))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(store))
    every = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=1000, allowed_statuses=every, include_metrics=True
    )
    backend = Context(TBContext(data_provider=provider))
    answer = list_session_groups.Handler(RequestContext(), backend, "", request).run()
    found = {}
    for group in answer.session_groups:
        (session,) = group.sessions
        settings = {
            name: value.string_value if value.HasField("string_value") else value.number_value
            for name, value in group.hparams.items()
        }
        metrics = {metric.name.tag: metric.value for metric in group.metric_values}
        run_id, _, name = session.name.partition("/")
        found[run_id] = name, settings, metrics
    return found


def test_the_hparams_page_has_every_run_with_the_settings_that_tell_runs_apart(finished_store: Path) -> None:
    rows = rows_of(finished_store)
    page = hparams_page(finished_store)
    assert set(page) == {row["run_id"] for row in rows}
    for row in rows:
        name, settings, metrics = page[row["run_id"]]
        size = f"-h{row['hidden']}-b{row['bits']}" if row["hidden"] else ""
        assert name == f"{row['task']}/{row['adapter']}{size}-s0"  # as `store ls` shows it
        for name, value in settings.items():
            assert value == row[name]
        assert metrics["test/acc"] == pytest.approx(row["acc"], abs=1e-7)  # scalars are float32
        assert metrics["bytes/file"] == row["bytes_file"]
        assert metrics["bytes/adapter"] == row["bytes_adapter"]
        assert metrics["seconds/train"] == pytest.approx(row["seconds_train"], rel=1e-6)
    assert len({json.dumps(settings, sort_keys=True) for _, settings, _ in page.values()}) == len(rows)
    # Columns that keep rows of a report apart: none may be missing here.
    (cell, *_) = json.loads(quickly("report", "--store", finished_store, "--format", "json").stdout)["rows"]
    apart = set(cell) & set(rows[0]) - {"group", "bits_per_weight"}
    assert {name for name in apart if not name.startswith("bytes_")} <= set(settings)


def test_the_report_says_how_to_look(finished_store: Path) -> None:
    lines = quickly("report", "--store", finished_store).stdout.splitlines()
    (found,) = [line for line in lines if line.startswith("training curves: ")]
    command = shlex.split(found.removeprefix("training curves: "))
    assert command == ["tensorboard", "--logdir", str(finished_store)]


def test_a_search_shows_the_accuracy_on_val_in_the_course_of_its_trainings(
    tmp_path: Path, few_images: list[str]
) -> None:
    """The last point of the chosen candidate is the row's acc_val; so are those of all in search.json."""
    arguments = [*few_images[:-1], "adapter=lora", "protocol=sealed", "protocol.scales=[0.1,1,10]"]
    arguments += ["protocol.rungs=[0.5,1]", "train.epochs=2", "train.warmup_epochs=0", "launcher=local"]
    done = quickly("sweep", *arguments, "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path)
    events = events_of(tmp_path / row["run_id"])
    epochs = [event.step for event in events.Scalars("val/acc")]
    assert epochs == [0, 1]
    assert events.Scalars("val/acc")[-1].value == pytest.approx(row["acc_val"], abs=1e-7)
    trials = json.loads((tmp_path / row["run_id"] / "search.json").read_text())["trials"]
    for trial in trials:
        tag = f"search/scale={trial['scale']},lr={trial['lr']},epochs={trial['epochs']}"
        curve = events.Scalars(tag)
        assert [event.step for event in curve] == [*range(trial["epochs"])]
        assert curve[-1].value == pytest.approx(trial["acc_val"], abs=1e-7)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_names_of_folders_are_safe(name: str) -> None:
    """Own data are named after their folder, which may be called anything."""
    (spec,) = plan(["sweep=none", "task=digits", "adapter=lora", "scale=1"]).runs
    held = readable_folder(dataclasses.replace(spec, task=dataclasses.replace(spec.task, name=name)))
    task, run = held.split("/")
    assert task.isprintable()
    assert len(task) <= 120
    assert not task.startswith(".")
    assert run == "lora-h16-b1-s0"
