"""Trained adapters in use: `petl_bench.load` and `SharedBackbone`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import petl_bench
from petl_bench import packing
from petl_bench.adapters import ADAPTERS
from petl_bench.data.decoded import decoded
from petl_bench.data.file_facts import file_facts
from petl_bench.data.lists import Listing
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.run.identity import backbone_sha256
from petl_bench.store import ADAPTER
from petl_bench.train import Pixels
from petl_bench.types import BackboneSpec, Cache, ModelSpec
from petl_bench.use import Model, SharedBackbone, Trained, load, read
from petl_bench.use.decoded import DecodedFiles
from petl_bench.use.images import Preparation
from tests import tiny
from tests.conftest import pick
from tests.test_frozen import fill


@cache
def checksum(backbone: BackboneSpec) -> str:
    return backbone_sha256(backbone)


BACKBONES = tiny.FAMILIES | tiny.FURTHER


def written(folder: Path, model: ModelSpec, **described: object) -> Path:
    """An adapter file with made-up weights; its backbone is stated by its architecture."""
    adapted = assemble(model)
    adapted.prepare()
    fill(adapted)
    run = tiny.run_spec(model, tiny.recipe())
    metadata = packing.describe(run, checksum(model.backbone), by_label=False) | described
    path = folder / f"{model.adapter.name}-{model.classes}-{model.bits}.safetensors"
    path.write_bytes(packing.dump(adapted.file(metadata)))
    return path


@pytest.fixture(scope="module")
def shared() -> SharedBackbone:
    return SharedBackbone(tiny.BACKBONE, device="cpu")


def merged(model: Model) -> torch.nn.Module | str:
    """The merged model, or the message that refuses it."""
    try:
        return model.merge()
    except UserError as error:
        return str(error)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_importing_the_package_imports_nothing_heavy_and_names_what_is_public() -> None:
    program = """import sys, petl_bench; print(*{m.split(".")[0] for m in sys.modules})"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "typer", "yaml"} & set(done.stdout.split())
    assert {"load", "SharedBackbone", "Model", "UserError"} <= {*dir(petl_bench)}
    assert petl_bench.load is load
    assert petl_bench.UserError is UserError
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        petl_bench.laod  # noqa: B018


@pytest.mark.parametrize("name", [*ADAPTERS])
def test_every_method_shares_a_backbone_and_merges_exactly_or_says_why_not(
    name: str, shared: SharedBackbone, tmp_path: Path
) -> None:
    """Expected logits are those of a backbone that is built for this file alone."""
    path = written(tmp_path, tiny.model_spec(name, bits=32 if name == "linear" else 1))
    trained = read(path, resize="crop")
    alone = restore(trained.facts.model, trained.file, "here").eval()
    before = {key: value.clone() for key, value in shared._resident.network.state_dict().items()}
    model = shared.use(path, resize="crop")
    batch = images()
    with torch.inference_mode():
        expected = alone(batch)
        assert torch.equal(model(batch), expected)
        plain = merged(model)
        if isinstance(plain, str):
            assert plain.startswith(f"{path}: {name} cannot be merged into the weights of ")
            assert any(type(m).__module__.startswith("petl_bench.adapters") for m in alone.modules())
        else:
            assert type(plain).__module__.startswith("timm.")
            assert torch.allclose(plain(batch), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    after = shared._resident.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(not parameter.requires_grad for parameter in shared._resident.network.parameters())


@pytest.mark.parametrize("adapter", ["ssf", "bitfit", "linear"])
@pytest.mark.parametrize("family", [name for name in BACKBONES if name != "VisionTransformer"])
@pytest.mark.sampled(each=1)
def test_backbones_of_every_family_are_shared(family: str, adapter: str, tmp_path: Path) -> None:
    with tiny.skipped_where_refused():
        model = tiny.model_spec(adapter, bits=32, backbone=BACKBONES[family])
        path = written(tmp_path, model)
    trained = read(path, resize="crop")
    expected = restore(trained.facts.model, trained.file, "here").eval()(images())
    model = load(path, resize="crop")
    assert torch.equal(model(images()), expected)
    plain = merged(model)
    if isinstance(plain, str):
        assert "cannot be merged" in plain
    else:
        assert torch.allclose(plain(images()), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_shared_backbones_compute_in_lower_precisions_as_one_alone(precision: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiny.model_spec("lora"))
    trained = read(path, resize="crop")
    alone = restore(trained.facts.model, trained.file, "here", precision).eval()
    model = load(path, resize="crop", precision=precision)
    assert model.info.precision == precision
    assert torch.equal(model(images()), alone(images()))


def test_decoded_files_are_kept_within_the_bound_and_the_least_recently_used_are_dropped(
    tmp_path: Path,
) -> None:
    paths = [written(tmp_path, replace(tiny.model_spec("lora"), classes=classes)) for classes in (2, 3, 4)]
    contents = [path.read_bytes() for path in paths]
    sizes = [len(packing.dump(packing.load(data, "here"))) for data in contents]
    kept = DecodedFiles(sum(sizes[:2]) + 10)
    for data in contents[:2]:
        kept.load(data, "here")
    assert kept.held == sum(sizes[:2])
    kept.load(contents[0], "here")
    kept.load(contents[2], "here")  # drops the second, which was used before the first
    assert kept.held == sizes[2] + (sizes[0] if sizes[0] + sizes[2] <= kept.most else 0)
    for data in contents:
        found, expected = kept.load(data, "here"), packing.load(data, "here")
        assert [t.entry for t in found.adapter] == [t.entry for t in expected.adapter]
        for one, other in zip(found.adapter, expected.adapter, strict=True):
            assert np.array_equal(one.codes, other.codes)
        assert kept.held <= kept.most
    nothing = DecodedFiles(0)
    nothing.load(contents[0], "here")
    assert nothing.held == 0


def test_images_of_a_batch_may_have_adapters_of_their_own(shared: SharedBackbone, tmp_path: Path) -> None:
    paths = [written(tmp_path, replace(tiny.model_spec("lora"), classes=n), resize="crop") for n in (3, 7)]
    pictures = [Image.fromarray(np.full((40, 36, 3), 40 * k, np.uint8)) for k in range(4)]
    order = [0, 1, 1, 0]
    found = shared.predict(pictures, [paths[k] for k in order], top=3)
    for picture, k, prediction in zip(pictures, order, found, strict=True):
        (alone,) = load(paths[k]).predict(picture, top=3)
        assert [c.label for c in prediction.top] == [c.label for c in alone.top]
        assert [c.probability for c in prediction.top] == pytest.approx([c.probability for c in alone.top])
    with pytest.raises(UserError, match="give one adapter per image"):
        shared.predict(pictures, paths)


def picture_files(folder: Path) -> Iterator[Path]:
    """One file of each kind by which the two ways of reading images differ."""
    colours = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    rgb = Image.fromarray(colours[..., :3])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    palette = rgb.quantize(20)
    kinds = {
        "rgb.png": (rgb, {}),
        "grey.png": (rgb.convert("L"), {}),
        "alpha.png": (Image.fromarray(colours), {}),
        "deep.png": (Image.fromarray(colours[..., 0].astype(np.uint16) * 257), {}),
        "palette.gif": (palette, {"transparency": 3}),
        "turned.jpg": (rgb, {"exif": exif}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "small.bmp": (rgb.crop((0, 0, 20, 20)), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
        yield folder / name


def prepared(trained: Trained, **changes: object) -> Trained:
    facts = replace(trained.facts, normalization=changes.pop("normalization"))
    return replace(trained, facts=facts, backbone=replace(trained.backbone, image_size=32), **changes)


@pytest.mark.parametrize("as_shown", [False, True])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("normalization", ["none", "imagenet"])
def test_the_transform_gives_the_pixels_of_the_data_path(
    as_shown: bool, resize: str, normalization: str, finished_store: Path, tmp_path: Path
) -> None:
    run = pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]
    changes = {"as_shown": as_shown, "resize": resize, "normalization": normalization}
    prepare = Preparation(prepared(read(finished_store / run), **changes))
    pixels = Pixels(normalization, 32, torch.device("cpu"))
    cache = Cache(str(tmp_path / "cache"))
    for path in picture_files(tmp_path):
        listing = Listing(tmp_path, tmp_path, [path.name], np.zeros(1, np.int64))
        facts = [file_facts(tmp_path, [path.name], cache)[path.name]]
        expected = pixels(torch.from_numpy(np.array(decoded(listing, facts, resize, 32, cache, as_shown))))[0]
        with Image.open(path) as image:
            assert torch.equal(prepare.transform(image), expected), path
        assert torch.equal(pixels(prepare(path)[None])[0], expected), path


def test_a_run_is_loaded_by_file_directory_and_id_and_predicts_as_its_evaluation(
    finished_store: Path,
) -> None:
    run = pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]
    for model in (load(finished_store / run), load(run, store=finished_store)):
        assert model.info == load(finished_store / run / ADAPTER).info
    assert model.class_names == tuple("0123456789")  # the labels of scikit-learn's load_digits
    assert (model.info.task, model.info.classes, model.info.resize) == ("digits", 10, "stretch")
    assert model.info.bytes_file == (finished_store / run / ADAPTER).stat().st_size
    picture = Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32))
    (found,) = model.predict(picture, top=10)
    logits = model(model.transform(picture)[None])[0].double()
    assert [c.label for c in found.top] == logits.argsort(descending=True).tolist()
    assert [c.probability for c in found.top] == logits.softmax(0).sort(descending=True).values.tolist()
    assert (found.label, found.name) == (int(logits.argmax()), str(int(logits.argmax())))


def test_what_cannot_be_used_is_refused_with_the_reason(
    finished_store: Path, shared: SharedBackbone, tmp_path: Path
) -> None:
    run = finished_store / pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]
    model, other = load(run), written(tmp_path, tiny.model_spec("lora"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    closed = Image.new("RGB", (8, 8))
    closed.close()
    with pytest.raises(TypeError, match="takes PIL images, not str"):
        model.transform(str(broken))
    cases = [
        (lambda: load(tmp_path / "none.safetensors"), "no such file"),
        (lambda: load(broken), "not a petl-bench adapter file"),
        (lambda: load(other), "does not state how images were resized"),
        (lambda: load(run, resize="crop"), "are resized by 'stretch', not 'crop'"),
        (lambda: load(run, precision="fp64"), "precision='fp64'"),
        (lambda: load(run, device="moon"), "device=moon: torch has no such device"),
        (lambda: load(run, backbone_weights=broken), "unknown file format"),
        (lambda: shared.use(run), "was trained on pocket with images of 32 pixels, not on vit_tiny"),
        (lambda: SharedBackbone("pokcet"), "did you mean 'pocket'"),
        (lambda: SharedBackbone("pocket", cache_bytes=-1), "must be 0 or more"),
        (lambda: model(torch.zeros(1, 3, 8, 8)), r"must be a batch \(N, 3, 32, 32\)"),
        (lambda: model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), "floating-point"),
        (lambda: model.predict(broken), "broken.png: is no image that can be recognized"),
        (lambda: model.predict([3]), "a path or a PIL image, not int"),
        (lambda: model.predict([closed]), "an image that was given opened: cannot be decoded: "),
        (lambda: model.predict([], top=11), "top=11: must be from 1 to 10"),
        (lambda: model.predict([], batch_size=0), "batch_size=0"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
