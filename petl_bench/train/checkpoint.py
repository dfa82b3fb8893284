"""Checkpoints: files with the state of a training, from which an interrupted training resumes exactly."""

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
"""Packages whose versions may change results."""

logger = logging.getLogger("petl_bench")


class TrainingState:
    """State of a training, saved in a checkpoint every few epochs and at the end.

    The file is a safetensors container of the parameters and, before the last epoch, of the states of AdamW
    and of torch's generators. All other random numbers of a training follow from its seed and its epoch.

    Args:
        path: the file, whose name identifies the training; None: the state is not saved.
        every: epochs between checkpoints, which may differ between attempts.
        average: mean of the last states, before its first state; None: none.
        source: digest of the code that trains; a checkpoint of other code is not used.

    Attributes:
        losses: mean loss of each epoch so far.
        peeks: accuracies so far: on test with protocol peek, on val in a search.
        earlier_seconds: seconds that earlier attempts needed to reach the state that this one began from.
    """

    def __init__(
        self, path: Path | None = None, every: int = 1, average: Average | None = None, source: str = ""
    ) -> None:
        self.path, self.every, self.average, self.source = path, every, average, source
        self.losses: list[float] = []
        self.peeks: list[float] = []
        self.earlier_seconds = 0.0
        self._begin = time.perf_counter()
        self._held: dict[str, Tensor] = {}
        self._calibrated: dict[str, Tensor] = {}
        self._file: tuple[dict[str, Any], dict[str, Tensor]] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training up to now; of earlier attempts, those up to their last checkpoint."""
        return self.earlier_seconds + time.perf_counter() - self._begin

    def load(self, device: torch.device) -> bool:
        """Read the checkpoint, and return whether there is one from which the training can resume.

        A checkpoint that is damaged, or of another version, device or training, is not used; the log says so.

        Args:
            device: device of the training.
        """
        if self.path is None or self._file is not None:
            return self._file is not None
        try:
            progress, tensors = _read(self.path.read_bytes())
            _check(progress["origin"], self._origin(device))
        except FileNotFoundError:
            return False
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.warning("checkpoint %s is not used, training starts over: %s", self.path.name, error)
            return False
        self._file = progress, tensors
        return True

    def restore(
        self, parameters: Sequence[nn.Parameter], calibrated: Mapping[str, Tensor] | None = None
    ) -> None:
        """Set parameters to their values in a loaded checkpoint; `resume` restores the optimizer.

        Args:
            parameters: trainable parameters.
            calibrated: tensors by name that a calibration before the training determines and that do not
                change afterwards; they are set, too.

        Raises:
            StoreError: the checkpoint has other tensors, and the calibration was skipped because of it.
        """
        self._calibrated = dict(calibrated or {})
        if self._file is None or self.path is None:
            return
        (progress, tensors), self._file = self._file, None
        wanted = [*parameters, *self._calibrated.values()]
        names = [f"parameter.{i}" for i in range(len(parameters))]
        names += [f"calibrated.{name}" for name in self._calibrated]
        held = [tensors.pop(name, torch.zeros(0)) for name in names]
        if [value.shape for value in held] != [tensor.shape for tensor in wanted]:
            message = f"checkpoint {self.path.name} is not used: its tensors have other shapes"
            if self._calibrated:  # not calibrated, because a checkpoint was found
                raise StoreError(f"{message}; remove {self.path}")
            logger.warning("%s; training starts over", message)
            return
        with torch.no_grad():
            for tensor, value in zip(wanted, held, strict=True):
                tensor.copy_(value)
        if self.average is not None:
            self.average.restore(_with_prefix(tensors, "average"), parameters)
        self.losses, self.peeks = progress["losses"], progress["peeks"]
        self.earlier_seconds = progress["seconds"]
        self._held = tensors
        logger.info("checkpoint %s: training resumes from epoch %d", self.path.name, len(self.losses))

    def resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore the optimizer and torch's generators, if `restore` has restored the parameters."""
        held, self._held = self._held, {}
        if not held:
            return
        state = optimizer.state_dict()
        for name, value in _with_prefix(held, "optimizer").items():
            index, _, key = name.partition(".")
            state["state"].setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(state)
        torch.set_rng_state(held["generator.cpu"])
        if "generator.cuda" in held:
            torch.cuda.set_rng_state(held["generator.cuda"], _parameters(optimizer)[0].device)

    def save(self, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Write the checkpoint if it is due after the last finished epoch.

        Args:
            optimizer: optimizer of all trainable parameters.
            epochs: number of epochs of the training.

        Raises:
            StoreError: the checkpoint cannot be written.
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
        progress = {
            "origin": self._origin(parameters[0].device),
            "losses": self.losses,
            "peeks": self.peeks,
            "seconds": self.seconds,
        }
        try:
            self.path.parent.mkdir(exist_ok=True)
            write_atomic(self.path, _bytes(progress, tensors))
        except OSError as error:
            raise StoreError(f"checkpoint {self.path}: cannot be written: {error.strerror}") from error

    def _origin(self, device: torch.device) -> dict[str, str]:
        """Return what a checkpoint must have in common with the training that resumes from it."""
        assert self.path is not None
        return VERSIONS | {"training": self.path.stem, "device": device.type, "source": self.source}


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors named `PREFIX.NAME`, by NAME."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _check(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(f"it is of {key} {found.get(key)}, this is {value}")


def _bytes(progress: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    held = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(progress)
    return bytes(save(held, {"progress": text, "sha256": _digest(text, held)}))


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `_bytes` has written.

    Raises:
        SafetensorError, ValueError, KeyError, TypeError: the data are not those of a checkpoint.
    """
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
