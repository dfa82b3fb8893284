"""Class names in adapter files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench import packing
from petl_bench.data import manifests
from petl_bench.errors import UserError
from tests import tiny

NAMES = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=20)


@settings(max_examples=10)
@given(st.lists(NAMES, min_size=tiny.CLASSES, max_size=tiny.CLASSES, unique=True))
def test_class_names_of_any_kind_are_read_back(names: list[str]) -> None:
    head = packing.Entry("weight", (tiny.CLASSES, 2), 32)
    values = np.zeros((tiny.CLASSES, 2), np.float32)
    file = packing.AdapterFile(packing.names_entry(names), [], [packing.StoredTensor(head, values=values)])
    found = packing.load(packing.dump(file), "here")
    assert packing.stated_class_names(found, "here") == tuple(names)
    without = packing.dump(replace(file, metadata={}))
    assert (
        0 <= len(packing.dump(file)) - len(without) - packing.bytes_of_names(found) + 7 < 15
    )  # padding to 8
    fewer = replace(file, metadata=packing.names_entry(names[1:]))
    with pytest.raises(UserError, match="states 4 class names for 5 classes"):
        packing.stated_class_names(fewer, "here")


def test_a_folder_name_that_is_not_utf8_is_kept() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    entry = packing.names_entry([name])
    head = packing.Entry("weight", (1, 1), 32)
    tensors = [packing.StoredTensor(head, values=np.zeros((1, 1), np.float32))]
    data = packing.dump(packing.AdapterFile(entry, [], tensors))
    assert packing.stated_class_names(packing.load(data, "here"), "here") == (name,)


def test_own_data_state_names_and_resizing_and_other_tasks_take_no_byte_for_them() -> None:
    model = tiny.model_spec()
    run = tiny.run_spec(model, tiny.recipe())
    names = ["cats", "dogs", "mice", "owls", "rats"]
    own = replace(run, task=replace(run.task, suite="own", resize="crop"))
    plain = packing.describe(run, "0" * 64, class_names=names)
    assert packing.describe(own, "0" * 64, class_names=names).items() - plain.items() == {
        ("resize", "crop"),
        *packing.names_entry(names).items(),
    }
    assert packing.describe(own, "0" * 64).items() - plain.items() == {("resize", "crop")}


def test_bundled_tasks_have_class_names() -> None:
    for manifest in manifests().values():
        if manifest.suite in ("pocket", "pocket19"):
            assert len(manifest.class_names) == manifest.classes, manifest.name
