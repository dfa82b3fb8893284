"""The short container: what it costs, that it holds what the other one holds, and that damage is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench import packing
from petl_bench.config import plan
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.packing.container import MAGIC, contained, opened
from petl_bench.packing.dictionary import dictionary
from petl_bench.store import Store
from tests.conftest import json_lines, quickly

DICTIONARY = "e23523c9693416639bdc8116526503e926d477669215610d73e6d12d67c540fd"
"""SHA-256 of the dictionary of version 4, taken when the format was introduced; files depend on it."""
POCKET = "922fda5b2132cac1fe4ac2243ad860aa" + "0" * 32
"""SHA-256 of the bundled backbone, as far as files state it."""


def test_the_dictionary_of_a_version_never_changes() -> None:
    assert MAGIC == b"\x93PB\x04"
    assert hashlib.sha256(dictionary()).hexdigest() == DICTIONARY


@given(text=st.text(), payload=st.binary(max_size=200), short=st.booleans())
def test_a_container_gives_back_any_text_and_payload(text: str, payload: bytes, short: bool) -> None:
    found = opened(contained(text, payload, short), "here")
    assert (found.text, found.payload, found.short) == (text, payload, short)


@given(data=st.data(), payload=st.binary(min_size=1, max_size=50))
def test_any_changed_or_missing_byte_is_refused(data: st.DataObject, payload: bytes) -> None:
    whole = contained("adapter=lora&hidden=4", payload, short=True)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UserError, match="here: "):
        opened(bytes(changed), "here")
    with pytest.raises(UserError, match="here: "):
        opened(whole[:place], "here")


def test_a_version_of_the_future_and_a_text_without_end_are_refused() -> None:
    with pytest.raises(
        UserError, match="a short adapter file of another version, 5; this petl-bench reads 4"
    ):
        opened(MAGIC[:-1] + b"\x05" + bytes(60), "here")
    held = MAGIC + b"\xff"
    for body in (held, MAGIC):
        with pytest.raises(UserError, match="its text"):
            opened(body + hashlib.sha256(body).digest(), "here")


@pytest.mark.parametrize(
    "overrides",
    [
        "adapter=adaptformer hidden=16 head=linear",
        "adapter=adaptformer hidden=16 head=bits2 scale=10 seed=2 task=sprites_loc",
        "adapter=lora hidden=4 head=binary scale=100 task=surfaces",
        "adapter=lora hidden=1 bits=2 head=bits4",
        "adapter=krona head=bits2",
        "adapter=fact_tk hidden=8 head=bits4 scale=0.1",
        "adapter=houlsby hidden=4 head=binary",
        "adapter=bitfit float_bits=1 head=bits4",
        "adapter=adapter_plus hidden=4 float_bits=1 head=bits2",
        "adapter=linear head=bits4",
    ],
)
def test_a_file_of_usual_settings_has_at_most_64_bytes_beside_payload_and_checksum(overrides: str) -> None:
    """And it holds the same metadata and tensors as the safetensors file of the same model."""
    given = {key: value for key, _, value in (item.partition("=") for item in overrides.split())}
    values = {"sweep": "none", "task": "digits", "scale": 1} | given
    (run,) = plan([f"{key}={value}" for key, value in values.items()]).runs
    adapted = assemble(run.model)
    adapted.prepare()
    metadata = packing.describe(run, POCKET)
    long, short = (adapted.file(metadata, True, short) for short in (False, True))
    data = packing.dump(short)
    payload = short.bytes_adapter + short.bytes_head
    assert len(data) - payload - 32 <= 64
    assert len(packing.dump(long)) - len(data) > 250
    again = packing.load(data, "here")
    twin = packing.load(packing.dump(long), "here")
    assert (again.metadata, again.short, twin.short) == (twin.metadata, True, False)
    for one, other in zip([*again.adapter, *again.head], [*twin.adapter, *twin.head], strict=True):
        assert one.entry == other.entry
        assert one.body() == other.body()
        assert one.statistics() == other.statistics()
    assert packing.dump(again) == data
    assert again.checksum == packing.load(data, "here").checksum


def test_runs_in_the_short_container_are_stored_used_and_evaluated(
    tmp_path: Path, few_images: list[str]
) -> None:
    one = [
        *few_images,
        "adapter=lora",
        "hidden=2",
        "scale=10",
        "train.epochs=2",
        "head=bits2",
    ]
    done = quickly(
        "sweep", "--store", tmp_path, *one, "container=safetensors,short", "launcher=local", "--json"
    )
    rows = {row["container"]: row for row in json_lines(done.stdout)}
    long, short = rows["safetensors"], rows["short"]
    assert long["predictions"] == short["predictions"]
    assert (long["bytes_adapter"], long["bytes_head"]) == (short["bytes_adapter"], short["bytes_head"])
    assert short["bytes_overhead"] <= 64 + 32 < long["bytes_overhead"]
    assert quickly("eval", "--all", "--store", tmp_path).returncode == 0
    assert quickly("store", "check", "--store", tmp_path).returncode == 0
    (path,) = Store(tmp_path).directory(short["run_id"]).glob("adapter.*")
    (about,) = json_lines(quickly("inspect", path, "--json").stdout)
    assert about["bytes_file"] == path.stat().st_size == short["bytes_file"]


@settings(max_examples=5, deadline=None)
@given(hidden=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_unusual_settings_take_more_bytes_and_are_read_as_well(hidden: int, seed: int) -> None:
    overrides = [
        "sweep=none",
        "task=digits",
        "scale=0.37",
        "adapter=lora",
        f"hidden={hidden}",
        f"seed={seed}",
    ]
    (run,) = plan([*overrides, "adapter.dropout=0.123"]).runs
    adapted = assemble(run.model)
    adapted.prepare()
    data = packing.dump(adapted.file(packing.describe(run, POCKET), True, True))
    facts = packing.interpret(packing.load(data, "here"), lambda label: run.backbone, "here")
    assert facts.model == dataclasses.replace(run.model)
    assert torch.isfinite(torch.tensor(facts.model.scale))
    assert re.fullmatch(r"[\w-]{43}", packing.load(data, "here").checksum)
