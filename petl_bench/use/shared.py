"""One backbone in memory for many adapters."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import torch

from petl_bench.backbones.sharing import Resident
from petl_bench.config import options
from petl_bench.device import find_device, find_precision
from petl_bench.errors import UserError, did_you_mean
from petl_bench.files import MB
from petl_bench.model import restore
from petl_bench.run.execute import configured, trained_on
from petl_bench.run.identity import backbone_sha256
from petl_bench.types import BackboneSpec
from petl_bench.types.parts import PRECISIONS
from petl_bench.use.decoded import DecodedFiles
from petl_bench.use.files import Source, Trained, backbone_of, read
from petl_bench.use.images import Image
from petl_bench.use.model import Model
from petl_bench.use.prediction import Prediction


class SharedBackbone:
    """A backbone that stays in memory, and models of many adapter files that share its weights.

    A model takes milliseconds once its file has been decoded. It needs memory of its own only for the weights
    that differ from those of the backbone: in fp32 updates are merged, so that these are whole matrices.

    Threads may call all methods at the same time. Models are independent of each other, so each thread may
    compute with another one; a single model computes in one thread at a time.

    Args:
        backbone: name of a backbone in conf/backbone, such as `vit_b16_in21k`; or an adapter file (or a run)
            that was trained on it.
        backbone_weights: file of backbone weights; None: as the name or the file states.
        device: torch's name of the device; auto: a GPU if there is one, else the CPU.
        precision: precision of all models, whatever that of their training: fp32, bf16, int8, or auto: bf16
            where the device has it. In int8 models share no weights.
        cache_bytes: bound on the memory of decoded files; the least recently used are dropped first.

    Raises:
        UserError: there is no such backbone, file, device or precision.
    """

    def __init__(
        self,
        backbone: Source | BackboneSpec,
        backbone_weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "fp32",
        cache_bytes: int = 256 * MB,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision={precision!r}: {did_you_mean(precision, PRECISIONS)}")
        if cache_bytes < 0:
            raise UserError(f"cache_bytes={cache_bytes}: must be 0 or more")
        self.device = torch.device(find_device(device, "device="))
        self.precision = find_precision(precision, str(self.device))
        self.spec = backbone if isinstance(backbone, BackboneSpec) else _spec(backbone, backbone_weights)
        self._resident = Resident(self.spec, self.precision, self.device)
        self._decoded = DecodedFiles(cache_bytes)
        self._labelled = cache(configured)
        self._building = threading.Lock()  # torch's generator of random numbers is one for all threads

    @property
    def cached_bytes(self) -> int:
        """Bytes that decoded files take now; at most `cache_bytes`."""
        return self._decoded.held

    def use(self, source: Source, resize: str | None = None, store: str | Path = "results") -> Model:
        """Return the model of an adapter file.

        Args:
            source: path of an adapter file, directory of a run, or run_id (or a unique beginning of one).
            resize: `stretch` or `crop`, only for files that do not state how images were resized.
            store: store of a run that is given by its run_id.

        Raises:
            UserError: there is no such file, it is damaged, or it was trained on another backbone.
        """
        return self.model(read(source, self.spec.weights, resize, store, self._decoded.load, self._labelled))

    def model(self, trained: Trained) -> Model:
        """Return the model of an adapter file that has been read.

        Raises:
            UserError: it was trained on another backbone.
        """
        stated, own, where = trained.facts.model.backbone, self.spec, trained.where
        if (stated.name, stated.image_size, stated.options) != (own.name, own.image_size, own.options):
            raise UserError(
                f"{where}: was trained on {stated.display_name} with images of {stated.image_size} pixels, "
                f"not on {own.display_name} with {own.image_size}"
            )
        with self._building, torch.random.fork_rng(devices=[]):
            facts = trained_on(trained.file, own, lambda: self._sha256, where)
            copy = self._resident.copy()
            network = restore(facts.model, trained.file, where, self.precision, self.device, copy)
        return Model(replace(trained, facts=facts, backbone=own), network, self.precision, self.device)

    def predict(self, images: Sequence[Image], sources: Sequence[Source], top: int = 1) -> list[Prediction]:
        """Return the most probable classes of images, each by an adapter of its own.

        Images of one adapter pass through the model together, one adapter after another: a batch of images
        takes the time of one `use` for each different adapter, and that of smaller batches.

        Args:
            images: paths of image files, or PIL images.
            sources: the adapter of each image, as for `use`.
            top: number of classes of each prediction.

        Raises:
            UserError: an image or an adapter file cannot be used, or there are not as many of both.
        """
        if len(images) != len(sources):
            raise UserError(f"{len(images)} images and {len(sources)} adapters: give one adapter per image")
        places: dict[str, list[int]] = {}
        for place, source in enumerate(sources):
            places.setdefault(str(source), []).append(place)
        found: dict[int, Prediction] = {}
        for source, chosen in places.items():
            own = self.use(source).predict([images[place] for place in chosen], top)
            found |= zip(chosen, own, strict=True)
        return [found[place] for place in range(len(images))]

    @cached_property
    def _sha256(self) -> str:
        return backbone_sha256(self.spec, self._resident.network)


def _spec(backbone: Source, weights: str | Path | None) -> BackboneSpec:
    """Return the backbone of a name in conf/backbone, or that of an adapter file."""
    name = str(backbone)
    if name in options("backbone"):
        spec = configured(name)
        return spec if weights is None else replace(spec, weights=str(weights))
    if not Path(name).exists():
        known = did_you_mean(name, options("backbone"))
        raise UserError(f"backbone {name!r}: neither a file nor a backbone of conf/backbone: {known}")
    return backbone_of(backbone, weights)
