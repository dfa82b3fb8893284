"""The command line on pretended GPUs: `python -m tests.cli_on_cuda FACTS ARGUMENTS...`.

FACTS is a JSON object: `allowed` GPUs, their `free` bytes, `failing` operations with the messages of their
errors, and `exclusive`, a file: GPUs then serve one process at a time, as in the compute mode of that name,
and a process takes a moment to end. At the end stderr says how convolutions are rounded, and which GPUs this
process has opened.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from multiprocessing.util import Finalize

import torch

from petl_bench.cli import main
from petl_bench.launch import pool
from tests import pretended_cuda
from tests.pretended_cuda import DEVICES

VARIABLE = "PETL_BENCH_PRETENDED"


class Exclusive(set[int]):
    """The GPUs that this process has opened, which no other process has open."""

    def add(self, gpu: int) -> None:
        if not self:
            try:
                fcntl.flock(
                    os.open(facts["exclusive"], os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB
                )
            except OSError:
                raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable") from None
            Finalize(None, time.sleep, (0.5,), exitpriority=1)
        super().add(gpu)


if VARIABLE in os.environ or __name__ == "__main__":
    facts = json.loads(os.environ.setdefault(VARIABLE, sys.argv[1] if __name__ == "__main__" else "{}"))
    free = facts.get("free", 60 * 2**30)
    memory = {"mem_get_info": lambda device=None: (free, 80 * 2**30)}
    pretended_cuda.install(allowed=set(facts.get("allowed", [0, 1])), **memory)
    DEVICES.failing.update(facts.get("failing", {}))
    if "exclusive" in facts:
        DEVICES.opened = Exclusive()

if __name__ == "__main__":
    pool.PRELOADED.append("tests.cli_on_cuda")  # the processes of a pool have the same GPUs
    del sys.argv[1]
    try:
        main()
    finally:
        rounding = torch.backends.cudnn.conv.fp32_precision
        print(f"convolutions: {rounding}, current: {DEVICES.current}", file=sys.stderr)
        print(f"opened: {sorted(DEVICES.opened)}", file=sys.stderr)
