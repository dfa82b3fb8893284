"""`sweep --dry-run` on a machine without the data and without network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import error_of, json_lines, quickly

PLAN = ["sweep=none", "adapter=lora", "bits=1,32", "scale=1", "backbone=timm", "backbone.weights=pretrained"]
PLAN += ["backbone.name=vit_tiny_patch16_224", "backbone.image_size=32"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise AssertionError("a plan has opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_a_plan_needs_neither_data_of_benchmarks_nor_pretrained_weights(tmp_path: Path) -> None:
    tasks = ["task=vtab_cifar,vtab_dtd,fgvc_cars", "data.root=cluster/data"]
    done = quickly("sweep", *PLAN, *tasks, "--dry-run", "--store", "store", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("not checked: ")]
    assert "data of 3 tasks (not in cluster/data)" in line
    assert "weights of vit_tiny_patch16_224 (not downloaded)" in line
    assert "6 runs, 6 to do" in done.stdout
    assert not (tmp_path / "store").exists()

    lines = json_lines(
        quickly("sweep", *PLAN, *tasks, "--dry-run", "--json", "--store", "store", cwd=tmp_path).stdout
    )
    assert [(line["run_id"], line["state"], line["to_do"]) for line in lines] == [(None, "unknown", True)] * 6


def test_what_is_there_is_identified_beside_what_is_not(tmp_path: Path) -> None:
    """The run on a bundled task has the run_id that it has without the other task."""
    arguments = ["sweep=none", "adapter=linear", "--dry-run", "--json", "--store", "store"]
    both = json_lines(quickly("sweep", "task=digits,vtab_dtd", *arguments, cwd=tmp_path).stdout)
    (alone,) = json_lines(quickly("sweep", "task=digits", *arguments, cwd=tmp_path).stdout)
    assert {line["task"]: line["run_id"] for line in both} == {"digits": alone["run_id"], "vtab_dtd": None}


def test_own_data_must_be_there_and_a_sweep_needs_all(tmp_path: Path) -> None:
    """Their sizes stand in no manifest."""
    arguments = ["sweep=none", "adapter=linear", "data.root=nowhere"]
    assert "no such folder" in error_of(quickly("sweep", "task=tree", *arguments, "--dry-run", cwd=tmp_path))
    assert "no such folder" in error_of(quickly("sweep", "task=vtab_dtd", *arguments, cwd=tmp_path))
