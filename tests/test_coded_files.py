"""Adapter files with coded sections: frozen format, damage and forgery seen, statistics in fewer bytes."""

import base64
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.numpy import save

from petl_bench import initialization
from petl_bench.errors import UserError
from petl_bench.packing import AdapterFile, Entry, StoredTensor, dump, load
from petl_bench.packing.predict import probability
from petl_bench.packing.tensors import round_statistic


def frozen_file(seed="7"):
    """A file of numbers that no library's release decides: a seeded start with every ninth sign flipped."""
    tensors = []
    for index, (shape, bits) in enumerate([((32, 8), 1), ((8, 48), 1), ((40, 8), 4), ((8, 40), 4)]):
        words = initialization.words(7, f"adapter.{index}.m", shape)
        codes = (words >> (32 - bits)).astype(np.uint8)
        codes.ravel()[::9] ^= 1 << (bits - 1)
        codes[:, 1] = codes[:, 0]
        tensors.append(StoredTensor(Entry(f"{index}.m", shape, bits), codes=codes, mean=0.25, std=0.5))
    metadata = {"adapter": "adaptformer", "task": "none"} | ({"seed": seed} if seed else {})
    head = [StoredTensor(Entry("weight", (3, 8), 32), values=np.arange(24, dtype=np.float32).reshape(3, 8))]
    return AdapterFile(metadata, tensors, head, code=True)


@cache
def frozen_bytes():
    return dump(frozen_file())


def test_the_format_is_frozen():
    """Values printed when format 2 was made: others mean that files of before cannot be read."""
    assert initialization.words(1, "adapter.0.down", (2, 2)).tolist() == WORDS
    data = dump(frozen_file())
    assert load(data, "here").packing == "coded"
    assert hashlib.sha256(data).hexdigest() == FILE
    assert hashlib.sha256(probability(np.arange(-(2**19), 2**19, 256)).tobytes()).hexdigest() == TABLE


WORDS = [[2098497299, 3800767397], [1404652863, 1200256639]]
FILE = "76a24d871a5380e42fdd1911d68583121f8c7a0064e5cd9d68977d756f87e4b0"
TABLE = "7ab3d9b6d4bda2ed27a89c15189ea062959e1e8c938bfa375bb38de310552ce8"


@given(st.data())
def test_a_flipped_bit_anywhere_in_a_coded_file_is_refused(data):
    content = bytearray(frozen_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(UserError, match="here"):
        load(bytes(content), "here")


def test_a_coded_file_cut_anywhere_is_refused():
    content = dump(frozen_file())
    for length in range(0, len(content), 7):
        with pytest.raises(UserError, match="here"):
            load(content[:length], "here")


def test_a_file_loaded_and_written_again_is_the_same():
    for file in (frozen_file(), frozen_file(seed=None), replace(frozen_file(), code=False)):
        content = dump(file)
        assert dump(load(content, "here")) == content
        fresh = load(content, "here")
        again = AdapterFile(fresh.metadata, fresh.adapter, fresh.head, fresh.code, fresh.statistic_size)
        assert dump(again) == content


def test_statistics_in_fewer_bytes():
    # Upper bytes of a float32, to nearest, ties to even (IEEE 754): 0.1 is 0x3DCCCCCD.
    assert round_statistic(0.1, 4) == float(np.float32(0.1))
    assert round_statistic(0.1, 3) == np.array(0x3DCCCD00, np.uint32).view(np.float32)
    assert round_statistic(0.1, 2) == np.array(0x3DCD0000, np.uint32).view(np.float32)
    assert round_statistic(np.array(0x3DCC8000, np.uint32).view(np.float32), 2) == np.array(
        0x3DCC0000, np.uint32
    ).view(np.float32)
    file = frozen_file()
    file = replace(file, adapter=[replace(tensor, mean=-0.1, std=0.3) for tensor in file.adapter])
    with pytest.raises(ValueError, match="do not fit"):
        _ = replace(file, statistic_size=2).sections
    short = file.with_statistic_size(2)
    assert short.bytes_adapter == file.bytes_adapter - 4 * len(file.adapter)
    assert short.bytes_adapter_raw == file.bytes_adapter_raw
    found = load(dump(short), "here")
    assert found.statistic_size == 2
    assert [t.mean for t in found.adapter] == [round_statistic(-0.1, 2)] * 4


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([2, 3, 4]))
def test_a_shortened_number_is_the_nearest_that_fits(value, statistics):
    found = round_statistic(value, statistics)
    step = 2.0 ** (8 * (4 - statistics) - 24)  # half of it is the relative error of a rounded mantissa
    assert abs(found - value) <= max(abs(value) * step, 2.0**-126) or abs(value) > 3.3e38


def forged(content, change, cut=lambda payload: payload):
    """The file with its metadata and payload changed and signed again, as only a hostile hand would."""
    ((_, tensor),) = deserialize(content)
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length])["__metadata__"]["petl-bench"].rpartition("&sha256=")[0]
    text, payload = change(text), cut(bytes(tensor["data"]))
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode() + payload).digest()).decode().rstrip("=")
    return save(
        {"payload": np.frombuffer(payload, np.uint8)}, metadata={"petl-bench": f"{text}&sha256={digest}"}
    )


def replaced(old, new):
    def change(text):
        assert old in text, text
        return text.replace(old, new)

    return change


def test_forging_nothing_gives_the_file_itself():
    content = dump(frozen_file())
    assert forged(content, lambda text: text) == content


HOSTILE = {
    "a layout that would fill the memory": replaced("0-0:m=32x8@1", "0-0:m=3200000x800000@1"),
    "an empty tensor in the stream": replaced("0-0:m=32x8@1", "0-0:m=0x1000000000@1"),
    "more positions than any": replaced("0-0:m=32x8@1", "0-0:m=20000x1@1"),
    "more bits than a stream that short can hold": replaced("0-0:m=32x8@1", "0-0:m=16000x64@1"),
    "no seed where one is needed": replaced("seed=7&", ""),
    "a head of another size": lambda text: re.sub(r"packing=(\d+)[|]", r"packing=\1|95", text),
    "many tensors": replaced("0-0:m=32x8@1", "0-9000:m=32x8@1"),
    "wider than its stream": replaced("0-0:m=32x8@1", "0-0:m=32000x8@1"),
    "a coded float32 tensor": replaced("0-0:m=32x8@1", "0-0:m=32x8"),
    "no size": lambda text: re.sub(r"packing=\d+", "packing=", text),
    "a negative size": lambda text: re.sub(r"packing=(\d+)", r"packing=-\1", text),
    "a size beyond the end": lambda text: re.sub(r"packing=(\d+)", r"packing=99\1", text),
    "three sections": lambda text: re.sub(r"packing=(\d+)", r"packing=\1|1|1", text),
    "a seed that is none": replaced("seed=7", "seed=seven"),
    "statistics of no size": lambda text: text + "&statistics=9",
    "statistics of no number of bits": lambda text: text + "&statistics=m13",
    "statistics of bits without a number": lambda text: text + "&statistics=m",
    "statistics in bits that are in bytes": lambda text: text + "&statistics=m4",
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_a_forged_file_is_refused(kind):
    with pytest.raises(UserError, match=r"^here: damaged adapter file"):
        load(forged(frozen_bytes(), HOSTILE[kind]), "here")


def test_a_forged_mode_is_refused():
    with pytest.raises(UserError, match=r"^here: damaged adapter file: .*mode"):
        load(forged(dump(frozen_file()), lambda text: text, lambda data: b"\xff" + data[1:]), "here")


@given(st.integers(0, 2**32))
def test_a_forged_stream_is_read_as_other_codes_or_refused(noise):
    content = frozen_bytes()
    words = np.random.default_rng(noise).integers(0, 256, 24, dtype=np.uint8).tobytes()
    head = 4 * (24 + 0)  # the head's floats stand behind the adapter's stream
    bad = forged(content, lambda text: text, lambda data: data[: -head - 24] + words + data[-head:])
    with suppress(UserError):
        assert len(load(bad, "here").adapter) == 4


def test_the_checksum_of_a_loaded_file_is_the_one_in_it():
    content = dump(frozen_file())
    assert f"sha256={load(content, 'here').checksum}" in content.decode("latin1")
    # SectionFormat 1 had no coded sections; its files are signed by their own first bytes.
    old = forged(dump(replace(frozen_file(), code=False)), replaced("format=2", "format=1"))
    found = load(old, "here")
    assert f"sha256={found.checksum}" in old.decode("latin1")
    assert found.packing == "raw"
