"""The state of a training in a file: one that was cut off goes on from it as if it had not been."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from petl_bench import __version__
from petl_bench.atomic import write_atomic
from petl_bench.errors import StoreError
from petl_bench.train.average import Average

VERSIONS = {
    "petl-bench": __version__,
    "torch": torch.__version__,
    "timm": timm.__version__,
    "pillow": PIL.__version__,
}
"""What may change numbers from release to release."""

logger = logging.getLogger("petl_bench")


class TrainingState:
    """How far one training is, kept in a file every few epochs and at its end.

    The file is a safetensors container: parameters and, until the last epoch, AdamW's state and torch's
    generators. Everything else that a training draws from follows from its seed and the number of the epoch.

    Attributes:
        losses: the mean loss of each epoch so far.
        peeks: test accuracies on the way so far, protocol peek only.
        earlier: seconds that attempts before this one took to get to where this one began.
    """

    def __init__(self, path: Path | None = None, every: int = 1, average: Average | None = None) -> None:
        """A training at its beginning.

        Args:
            path: the file, named after all that decides the training; None: it is kept nowhere.
            every: epochs between checkpoints; may be another number from attempt to attempt.
            average: of the last states, at its beginning.
        """
        self.path, self.every, self.average = path, every, average
        self.losses: list[float] = []
        self.peeks: list[float] = []
        self.earlier = 0.0
        self._begin = time.perf_counter()
        self._held: dict[str, Tensor] = {}
        self._calibrated: dict[str, Tensor] = {}
        self._file: tuple[dict[str, Any], dict[str, Tensor]] | None = None

    @property
    def seconds(self) -> float:
        """Of training, earlier attempts included; what they did after their last checkpoint is not."""
        return self.earlier + time.perf_counter() - self._begin

    def found(self, device: torch.device) -> bool:
        """Whether there is a file to go on from.

        One that is damaged, or of another version, device or training, is not used; the log says so.
        """
        if self.path is None or self._file is not None:
            return self._file is not None
        try:
            said, tensors = _read(self.path.read_bytes())
            _check(said["origin"], _origin(self.path, device))
        except FileNotFoundError:
            return False
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.warning("checkpoint %s is not used, training starts anew: %s", self.path.name, error)
            return False
        self._file = said, tensors
        return True

    def restore(
        self, parameters: Sequence[nn.Parameter], calibrated: Mapping[str, Tensor] | None = None
    ) -> None:
        """Go to where the file is, where one was found, its values in the parameters; `resume` does the rest.

        Args:
            calibrated: what was found before the training and stays as it is, by name; filled, too, so that a
                training goes on with what it began with.

        Raises:
            StoreError: the file is of other tensors, and the calibration that it spared is missing.
        """
        self._calibrated = dict(calibrated or {})
        if self._file is None or self.path is None:
            return
        (said, tensors), self._file = self._file, None
        wanted = [*parameters, *self._calibrated.values()]
        names = [f"parameter.{i}" for i in range(len(parameters))]
        names += [f"calibrated.{name}" for name in self._calibrated]
        held = [tensors.pop(name, torch.zeros(0)) for name in names]
        if [value.shape for value in held] != [tensor.shape for tensor in wanted]:
            message = f"checkpoint {self.path.name} is not used: its tensors have other shapes"
            if self._calibrated:  # nothing was, because it was found
                raise StoreError(f"{message}; remove {self.path}")
            logger.warning("%s; training starts anew", message)
            return
        with torch.no_grad():
            for tensor, value in zip(wanted, held, strict=True):
                tensor.copy_(value)
        if self.average is not None:
            self.average.restore(_of(tensors, "average"), parameters)
        self.losses, self.peeks, self.earlier = said["losses"], said["peeks"], said["seconds"]
        self._held = tensors
        logger.info("checkpoint %s: training goes on from epoch %d", self.path.name, len(self.losses))

    def resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer and torch's generators the state they had, where `restore` has found one."""
        held, self._held = self._held, {}
        if not held:
            return
        state = optimizer.state_dict()
        for name, value in _of(held, "optimizer").items():
            index, _, key = name.partition(".")
            state["state"].setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(state)
        torch.set_rng_state(held["generator.cpu"])
        if "generator.cuda" in held:
            torch.cuda.set_rng_state(held["generator.cuda"], _parameters(optimizer)[0].device)

    def keep(self, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Write the file if it is time to, after an epoch of `epochs` in all.

        Raises:
            StoreError: it cannot be written.
        """
        done = len(self.losses)
        if self.path is None or (done % self.every and done < epochs):
            return
        parameters = _parameters(optimizer)
        tensors: dict[str, Tensor] = {f"parameter.{i}": value for i, value in enumerate(parameters)}
        tensors |= {f"calibrated.{name}": value for name, value in self._calibrated.items()}
        if done < epochs:
            for i, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
            if self.average is not None:
                tensors |= {f"average.{key}": value for key, value in self.average.state().items()}
            tensors["generator.cpu"] = torch.get_rng_state()
            device = parameters[0].device
            if device.type == "cuda":
                tensors["generator.cuda"] = torch.cuda.get_rng_state(device)
        said = {
            "origin": _origin(self.path, parameters[0].device),
            "losses": self.losses,
            "peeks": self.peeks,
            "seconds": self.seconds,
        }
        try:
            self.path.parent.mkdir(exist_ok=True)
            write_atomic(self.path, _bytes(said, tensors))
        except OSError as error:
            raise StoreError(f"checkpoint {self.path}: cannot be written: {error.strerror}") from error


def _of(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Those named `KIND.NAME`, by NAME."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    (group,) = optimizer.param_groups
    found: list[nn.Parameter] = group["params"]
    return found


def _origin(path: Path, device: torch.device) -> dict[str, str]:
    """What a file must have in common with the training that goes on from it."""
    return VERSIONS | {"training": path.stem, "device": device.type}


def _check(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(f"it is of {key} {found.get(key)}, this is {value}")


def _bytes(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    held = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(said)
    return bytes(save(held, {"progress": text, "sha256": _digest(text, held)}))


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `_bytes`; raises SafetensorError, ValueError, KeyError or TypeError on anything else."""
    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    if _digest(metadata["progress"], tensors) != metadata["sha256"]:
        raise ValueError("damaged: the checksum does not agree with the content")
    return json.loads(metadata["progress"]), {name: value.clone() for name, value in tensors.items()}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
