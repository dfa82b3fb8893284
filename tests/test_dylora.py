"""What DyLoRA alone has: a rank drawn for each pass, and files that hold those of lower ranks."""

import dataclasses

import numpy as np
import pytest
import torch

from petl_bench import packing
from petl_bench.backbones import families
from petl_bench.cli.convert import Format, convert
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.packing import dump, load
from tests import tiny
from tests.reference.methods import dylora
from tests.test_methods import some_images, stirred

RANKS = 4


def spec_of(bits=32, **settings):
    return tiny.model_spec("dylora", bits=bits, hidden=RANKS, scale=0.5, **settings)


def prepared(bits=32, **settings):
    spec = spec_of(bits, **settings)
    adapted = assemble(spec, seed=3)
    adapted.prepare()
    return spec, stirred(adapted)


def drawn(adapted):
    """The number of ranks of the last training pass."""
    modules = adapted.network.modules()
    numbers = {int(module.number) for module in modules if type(module).__name__ == "Drawn"}
    assert len(numbers) == 1, "one for all blocks"
    return numbers.pop()


def plain(spec, adapted, ranks):
    state = families.build(spec.backbone)[0].state_dict()
    head = adapted.head.latents["weight"], adapted.head.floats["bias"][0].detach()
    settings = spec.adapter.settings | {"kept": ranks}
    tensors = adapted.adapter.latents
    return dylora.Model(state, tensors, 3, settings, spec.scale, RANKS, head).logits(some_images())


def test_each_training_pass_draws_its_rank():
    spec, adapted = prepared()
    expected = {ranks: plain(spec, adapted, ranks) for ranks in range(1, RANKS + 1)}
    torch.manual_seed(0)
    adapted.network.train()
    found = set()
    for _ in range(30):
        logits = adapted.network(some_images())
        found.add(drawn(adapted))
        torch.testing.assert_close(logits, expected[drawn(adapted)], rtol=0, atol=1e-5)
    assert found == set(expected)
    adapted.network.eval()
    torch.testing.assert_close(adapted.network(some_images()), expected[RANKS], rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 32])
def test_ranks_beyond_the_drawn_one_get_no_gradient(bits):
    _, adapted = prepared(bits)
    torch.manual_seed(1)
    adapted.network.train()
    while drawn(adapted) == RANKS:
        adapted.network(some_images())
    adapted.network(some_images()).square().sum().backward()
    ranks = drawn(adapted)
    for name, gradient in tiny.gradients(adapted).items():
        if name.split(".")[-1].isdigit():
            assert bool(gradient.any()) == (int(name.split(".")[-1]) < ranks), name


@pytest.mark.parametrize("bits", [1, 32])
def test_what_is_kept_is_stored_as_in_the_whole_file_and_alone_used(bits):
    spec, adapted = prepared(bits, kept=2)
    whole_spec, whole = prepared(bits)
    assert len(adapted.trainable) == len(whole.trainable), "ranks beyond are trained"
    whole_file = {tensor.entry.name: tensor for tensor in whole.file({}).adapter}
    stored = adapted.file({}).adapter
    assert [t.entry.name for t in stored] == [n for n in whole_file if int(n.split(".")[-1]) < 2]
    for tensor in stored:
        twin = whole_file[tensor.entry.name]
        assert (tensor.mean, tensor.std) == (twin.mean, twin.std)
        held = ("values", tensor.values, twin.values) if bits == 32 else ("codes", tensor.codes, twin.codes)
        np.testing.assert_array_equal(*held[1:])
    with torch.no_grad():
        expected = adapted.network.eval()(some_images())
        found = restore(spec, load(dump(adapted.file({})), "here"), "here").eval()(some_images())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if bits == 32:
        torch.testing.assert_close(expected, plain(whole_spec, whole, 2), rtol=0, atol=1e-5)


def test_a_whole_file_is_cut_by_leaving_out_tensors():
    _, whole = prepared(2)
    spec, kept = prepared(2, kept=3)
    file = whole.file({})
    tensors = [tensor for tensor in file.adapter if int(tensor.entry.name.split(".")[-1]) < 3]
    cut = dataclasses.replace(file, adapter=tensors)
    with torch.no_grad():
        expected = kept.network.eval()(some_images())
        found = restore(spec, cut, "here").eval()(some_images())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_blocks_of_fewer_ranks_keep_all_they_have():
    # Two blocks are in the first and the third quarter: parts of 2 and 6, of 8 ranks in all.
    def ranks(kept):
        matrices = assemble(spec_of(allocation="rising", kept=kept)).adapter.matrices
        return [sum(name.startswith(f"{i}.q.down") for name in matrices) for i in (0, 1)]

    assert ranks(0) == [2, 6]
    assert ranks(4) == [2, 4]


@pytest.mark.parametrize("kept", [-1, RANKS + 1])
def test_as_many_as_there_are_can_be_kept(kept):
    with pytest.raises(UserError, match=rf"kept={kept} of {RANKS} ranks"):
        assemble(spec_of(kept=kept))


def test_convert_cuts_a_file_to_any_rank(tmp_path):
    spec, adapted = prepared(2)
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    run = tiny.run_spec(spec, tiny.recipe(), seed=3)
    whole.write_bytes(dump(adapted.file(packing.describe(run, "0" * 64), code=True)))
    for ranks in range(1, RANKS + 1):
        small.unlink(missing_ok=True)
        convert([whole, small], to=Format.petl_bench, ranks=ranks)
        file = load(small.read_bytes(), "small")
        facts = packing.interpret(file, lambda label: pytest.fail("not a bundled one"), "small")
        assert facts.model.adapter.settings["kept"] == ranks
        with torch.no_grad():
            found = restore(facts.model, file, "small").eval()(some_images())
            wanted = prepared(2, kept=ranks)[1].network.eval()(some_images())
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert small.read_bytes() != whole.read_bytes()  # it says how many it keeps
    assert load(small.read_bytes(), "").bytes_adapter == load(whole.read_bytes(), "").bytes_adapter


@pytest.mark.parametrize(
    ("adapter", "ranks", "message"),
    [
        ("dylora", 0, "has 4; give 1 to 4"),
        ("dylora", 5, "has 4; give 1 to 4"),
        ("lora", 1, "files of dylora"),
    ],
)
def test_what_cannot_be_cut_is_refused(adapter, ranks, message, tmp_path):
    spec = tiny.model_spec(adapter, hidden=RANKS)
    path = tmp_path / "a.safetensors"
    run = tiny.run_spec(spec, tiny.recipe())
    path.write_bytes(dump(tiny.quantized_model(spec).file(packing.describe(run, "0" * 64))))
    with pytest.raises(UserError, match=message):
        convert([path, tmp_path / "b.safetensors"], to=Format.petl_bench, ranks=ranks)
    assert not (tmp_path / "b.safetensors").exists()
