"""Compression of adapter files that belong to no run: nothing is chosen or evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl_bench import packing
from petl_bench.model.compression import FORMS
from petl_bench.packing import AdapterFile
from petl_bench.run.compressing import Source, filed
from petl_bench.run.metadata import sizes
from petl_bench.types import COMPRESSIONS, ModelSpec, method


def compressed_file(
    file: AdapterFile, model: ModelSpec, chosen: Mapping[str, Any], where: str
) -> tuple[bytes, dict[str, object]]:
    """Return the bytes of a compressed adapter file, and the columns of a row that it determines.

    Args:
        file: the adapter file at 32 bits.
        model: description of its model, with the backbone.
        chosen: the way of compressing, `compress`, and its settings.
        where: path of the file, for messages.

    Raises:
        UserError: the adapter cannot be compressed in this way.
    """
    how, unused = chosen["compress"], method(model.adapter.name).unused
    fixed = {name: value for name, value in COMPRESSIONS[how].fixed.items() if name not in unused}
    own = {"quantizer": "l1_median"} | {
        name: chosen[name] for name in ("bits", "float_bits", "quantizer") if name in chosen
    }
    settings = own | fixed
    compressed = replace(model, compress=how, **settings)
    source = Source(model, file, where)
    if how in FORMS:
        FORMS[how].check(source.start.adapter, source.start.network)
    tensors = source.compressed(compressed, chosen.get("kept", 0.0), chosen.get("strength", 0.0))
    stated = {"bits": str(compressed.bits), "quantizer": compressed.quantizer, "compress": how}
    if compressed.float_bits != model.float_bits:
        stated["float_bits"] = str(compressed.float_bits)
    result = filed(file.metadata | stated, tensors, file, how, coded=True, short=file.short)
    result = result.with_fewest_exact_bytes()  # fewer might change predictions, which need images
    data = packing.dump(result)
    columns: dict[str, object] = {
        "compress": how,
        "bits": compressed.bits,
        "float_bits": compressed.float_bits,
    }
    columns |= {"quantizer": compressed.quantizer, "adapter": model.adapter.name, "hidden": model.hidden}
    columns |= {name: chosen.get(name, 0.0) for name in ("kept", "strength")}
    return data, columns | sizes(result, len(data))
