"""Training steps as a GPU sees them: their number of operations, and whether they compile as one graph."""

import re
import shutil

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from petl_bench.adapters import ADAPTERS
from petl_bench.backbones.precision import Int8Linear
from petl_bench.dev.bench.operations import Operations, step_operations
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.train import Compiled, Hooks, Training, evaluate, fit
from petl_bench.types import method
from tests import tiny
from tests.conftest import long

MOST = {
    "adapter_plus": 715,
    "adaptformer": 560,
    "bitfit": 455,
    "bottleneck": 584,
    "c3a": 733,
    "convpass": 1486,
    "corda": 1185,
    "dora": 1022,
    "dtl": 688,
    "dylora": 904,
    "earth": 1345,
    "fact_tk": 1429,
    "fact_tt": 1155,
    "fourierft": 853,
    "full": 505,
    "hira": 758,
    "houlsby": 901,
    "hydra": 948,
    "ia3": 830,
    "krona": 1146,
    "linear": 233,
    "ln_tune": 405,
    "lora": 662,
    "lora_xs": 951,
    "lt_sft": 904,
    "mosa": 669,
    "moslora": 758,
    "pfeiffer": 680,
    "pissa": 1145,
    "repadapter": 738,
    "road": 1682,
    "scratch": 144,
    "sketch": 1001,
    "soka": 1481,
    "ssf": 922,
    "uni_lora": 973,
    "vb_lora": 1177,
    "vera": 898,
    "vpt_deep": 491,
    "vpt_shallow": 436,
}
"""Operations of a step at 12 blocks, 1 bit and fp32, as counted when they were bounded. A method that needs
more should say why; one that needs fewer lowers its number."""
OTHER = 2000
"""Bound of methods that are not listed yet."""


def spec_of(name):
    return tiny.model_spec(name, bits=method(name).unused.get("bits", 1))


def test_operations_are_those_that_compute_something():
    """By hand: a product, a sum and a comparison, but no view."""
    x = torch.ones(4, 6)
    with Operations() as counted:
        ((x.view(2, 12).t() @ torch.ones(2, 3)).unsqueeze(0)[:, 1:] > 0).sum()
    assert counted.count == 4  # ones, mm, gt, sum


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.sampled(10)
def test_a_step_has_no_more_operations_than_it_had(name):
    """Every block has the same ones, so that two and three blocks tell twelve."""
    two, three = (step_operations(spec_of(name), "fp32", blocks) for blocks in (2, 3))
    # Other releases of timm and torch may split an operation.
    assert two + 10 * (three - two) <= 1.1 * MOST.get(name, OTHER)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.sampled(3)
def test_the_network_compiles_as_one_graph(name, precision):
    """Without a break, training and evaluation; the outputs are those of the plain network."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    adapted = assemble(spec_of(name), 3)
    if precision == "int8" and adapted.trains_backbone:
        with pytest.raises(UserError, match="int8 needs a frozen backbone"):
            adapted.prepare(precision)
        return
    adapted.prepare(precision)
    compiled = torch.compile(adapted.network, fullgraph=True, backend="eager")
    images = torch.rand(4, 3, 32, 32)
    for training in (True, False):
        adapted.network.train(training)
        torch.manual_seed(1)
        expected = adapted.network(images)
        torch.manual_seed(1)
        found = compiled(images)
        assert (found - expected).abs().max() <= (1e-4 if precision == "fp32" else 0.1), training
        found.sum().backward()
    assert all(weight.grad is not None for weight in adapted.trainable)


@long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler for the CPU")
def test_a_compiled_linear_in_int8_is_a_product_between_two_passes(monkeypatch):
    """Forward and backward, in the code that torch writes for the CPU; without it there are twelve passes."""
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # more are processes that import torch
    torch._dynamo.reset()
    torch.manual_seed(0)
    module = Int8Linear(torch.nn.Linear(96, 64).bfloat16())
    rows = torch.randn(64, 96, dtype=torch.bfloat16, requires_grad=True)
    with Operations() as counted:
        expected = module(rows)
    # abs, amax, clamp, two divisions, round, clamp, to int8; the product; to bfloat16, mul, addcmul
    assert counted.count == 12
    expected.sum().backward()
    gradient, rows.grad = rows.grad, None
    compiled = torch.compile(module, fullgraph=True)

    def passes():
        found = compiled(rows)
        found.sum().backward()
        return found

    found, codes = run_and_get_code(passes)
    for code in codes:
        calls = re.findall(
            r"^ +(?:\w+ = )?(cpp_fused|extern_kernels\._int_mm|extern_kernels)", code, re.MULTILINE
        )
        assert calls == ["cpp_fused", "extern_kernels._int_mm", "cpp_fused"]
    assert len(codes) == 2
    # Compiled passes round to bfloat16 (8 bits) at their end alone.
    torch.testing.assert_close(found, expected, rtol=0, atol=2**-7 * expected.abs().max().item())
    torch.testing.assert_close(rows.grad, gradient, rtol=0, atol=2**-7 * gradient.abs().max().item())


GRAPHS = {"dtl": 2}
"""Methods whose networks keep something from one pass to the next: the first step begins without it, and one
after an evaluation finds that of the evaluation. Each of these states has a graph of its own."""


class Looks(Hooks):
    """Evaluations of the plain network between epochs, in batches of another size."""

    def __init__(self, adapted):
        self.adapted, self.steps = adapted, 0

    def before_step(self):
        self.steps += 1
        assert all(weight.grad is None for weight in self.adapted.trainable)

    def after_epoch(self, epoch):
        evaluate(self.adapted.network, tiny.split(5), tiny.pixels())


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.sampled(3)
def test_all_steps_of_a_training_are_one_graph(name, monkeypatch):
    """One graph for all steps, in spite of evaluations between them and of images that fill no batch.

    It is what a GPU would replay: it contains quantization and network, no value is read from it on the way,
    and the tensors that come to it have the same shapes each time.
    """
    torch._dynamo.reset()
    graphs, shapes = [], set()

    def backend(graph, inputs):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])

        def run(*given):
            shapes.add(tuple(getattr(value, "shape", None) for value in given))
            return graph.forward(*given)

        return run

    plain = torch.compile
    monkeypatch.setattr("torch.compile", lambda run, mode: plain(run, backend=backend, fullgraph=True))
    losses = []
    for compile_it in (False, True):
        adapted = assemble(spec_of(name), 3, drop_path=0.1)
        adapted.prepare()
        model = Compiled(adapted.network, "reduce-overhead") if compile_it else adapted.network
        hooks = Looks(adapted)
        data, recipe = tiny.split(11), tiny.recipe(2, 4, warmup_epochs=0)
        torch.manual_seed(0)
        losses.append(
            fit(Training(model, adapted.trainable, data, recipe, tiny.pixels(), seed=0, hooks=hooks))
        )
        assert hooks.steps == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(graphs) <= GRAPHS.get(name, 1)
    assert len(shapes) == 1
