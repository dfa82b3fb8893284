"""Decoded adapter files, kept in bounded memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import replace

from petl_bench import packing
from petl_bench.packing import AdapterFile


class DecodedFiles:
    """Adapter files that have been decoded; the least recently used are dropped.

    They are kept as files with raw codes, which take a fraction of the memory of tensors and are read in
    milliseconds. Several threads may use them.

    Args:
        most: maximum bytes.

    Attributes:
        held: bytes of the files that are kept now.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._files: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, data: bytes, where: str) -> AdapterFile:
        """Return the adapter file of some bytes; see petl_bench.packing.load.

        Raises:
            UserError: it is damaged, or no adapter file.
        """
        key = hashlib.sha256(data).digest()
        with self._lock:
            raw = self._files.get(key)
            if raw is not None:
                self._files.move_to_end(key)
                return packing.load(raw, where)
        file = packing.load(data, where)
        raw = data if file.packing == "raw" else packing.dump(replace(file, code=False))
        with self._lock:
            if key not in self._files and len(raw) <= self.most:
                self._files[key] = raw
                self.held += len(raw)
            while self.held > self.most:
                self.held -= len(self._files.popitem(last=False)[1])
        return file
