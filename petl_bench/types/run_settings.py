"""The settings of a run that belong to no part of it."""

from __future__ import annotations

from dataclasses import dataclass

from petl_bench.types.compression import COMPRESSIONS, NOT_COMPRESSED
from petl_bench.types.parts import CONTAINERS, FLOAT_BITS, PACKINGS, PRECISIONS, STATISTICS, STATISTICS_OF
from petl_bench.types.settings import setting

MOST_HIDDEN, MOST_FACTOR = 10**6, 1e38
"""Bounds: beyond any model, and of what float32 holds."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings that stand in a run's spec and, under the same names, in its row."""

    hidden: int = setting(
        "Hidden units of the adapter, the rank of its update.",
        16,
        least=0,
        most=MOST_HIDDEN,
        right=f"a number of hidden units, 0 or more, at most {MOST_HIDDEN:,}",
        column="row",
    )
    scale: float | None = setting(
        "Factor on the adapter's output; null: as the protocol chooses it.",
        None,
        above=0,
        most=MOST_FACTOR,
        column="task",
        follows_bits=True,
    )
    quantizer: str = setting(
        "Codebook of the adapter's weights below 32 bits.",
        "l1_median",
        option=True,
        column="row",
        follows_bits=True,
        usual="l1_median",
    )
    bits: int = setting(
        "Bits per weight of the adapter: 1 to 8, or 32 for no quantization.",
        1,
        choices=(*range(1, 9), FLOAT_BITS),
        right="1 to 8, or 32 for none",
        column="row",
        follows_bits=True,
    )
    float_bits: int = setting(
        "Bits per float parameter of the adapter: 1 to 8, stored as deviations from the start, or 32.",
        FLOAT_BITS,
        before=FLOAT_BITS,
        quiet=True,
        choices=(*range(1, 9), FLOAT_BITS),
        right="1 to 8, or 32 for none",
        column="row",
        follows_bits=True,
        usual=FLOAT_BITS,
    )
    head: str = setting(
        "Classification head: linear (float32), or without bias binary (1 bit per weight), bits2, 3, 4 or 8.",
        "linear",
        option=True,
        column="row",
        usual="linear",
    )
    precision: str = setting(
        "Precision of the frozen backbone: fp32, bf16, int8, or auto: bf16 where the hardware has it.",
        "fp32",
        choices=PRECISIONS,
        column="table",
    )
    start: float = setting(
        "Bound of the uniform start of both matrices of a pair; 0: the start that the method defines.",
        0.0,
        before=0.0,
        quiet=True,
        least=0,
        most=1,
        column="row",
        follows_bits=True,
        usual=0.0,
        use="matrices",
    )
    matrix_lr: float = setting(
        "Factor on train.lr for the adapter's matrices; head and float parameters keep train.lr.",
        1.0,
        before=1.0,
        quiet=True,
        above=0,
        most=MOST_FACTOR,
        column="row",
        follows_bits=True,
        usual=1.0,
        use="matrices",
    )
    rate_weight: float = setting(
        "Weight of the adapter's coded length in the training loss; about 0.03 makes it shorter.",
        0.0,
        before=0.0,
        least=0,
        most=MOST_FACTOR,
        column="row",
        follows_bits=True,
        usual=0.0,
        use="adapter codes",
    )
    packing: str = setting(
        "coded: codes are entropy-coded where that makes the file smaller; raw: codes as they are.",
        "coded",
        before="raw",
        choices=PACKINGS,
        right=" or ".join(PACKINGS),
        column="row",
        follows_bits=True,
        usual="coded",
        use="codes",
    )
    statistics: str = setting(
        "Means and stds: exact: float32; short, shortest: fewest bytes or bits with equal predictions.",
        "exact",
        before="exact",
        choices=STATISTICS,
        right=" or ".join(STATISTICS),
        column="row",
        follows_bits=True,
        usual="exact",
        use="codes",
    )
    statistics_of: str = setting(
        "What shares one mean and one std: each matrix alone, all of a role, or all of the adapter.",
        "matrix",
        before="matrix",
        quiet=True,
        choices=STATISTICS_OF,
        right=" or ".join(STATISTICS_OF),
        column="row",
        follows_bits=True,
        usual="matrix",
        use="adapter codes",
    )
    container: str = setting(
        "Container of the adapter file: safetensors, or short, with some 370 bytes less.",
        "safetensors",
        before="safetensors",
        quiet=True,
        choices=CONTAINERS,
        right=" or ".join(CONTAINERS),
        column="row",
        follows_bits=True,
        usual="safetensors",
    )
    compress: str = setting(
        "Compression of the run at 32 bits after its training: none, ptq, compeft, loraquant or bitdelta.",
        NOT_COMPRESSED,
        before=NOT_COMPRESSED,
        quiet=True,
        choices=(NOT_COMPRESSED, *COMPRESSIONS),
        right=" or ".join((NOT_COMPRESSED, *COMPRESSIONS)),
        column="row",
        follows_bits=True,
        usual=NOT_COMPRESSED,
    )
    kept: float = setting(
        "Share that compression keeps: of the weights, or of the squared singular values; 0: chosen on val.",
        0.0,
        before=0.0,
        quiet=True,
        least=0,
        most=1,
        column="row",
        follows_bits=True,
        usual=0.0,
        use="compression",
    )
    strength: float = setting(
        "compress=compeft: size of the kept deviations in standard deviations of all; 0: chosen on val.",
        0.0,
        before=0.0,
        quiet=True,
        least=0,
        most=MOST_FACTOR,
        column="row",
        follows_bits=True,
        usual=0.0,
        use="compression",
    )
    seed: int = setting(
        "Seed of initialization, data order, augmentation and dropout.",
        0,
        least=0,
        below=2**63,
        right="a whole number, 0 or more, below 2**63",
        column="repetition",
    )
