import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from petl_bench.adapters import ADAPTERS
from petl_bench.backbones import families
from petl_bench.data import Split
from petl_bench.errors import DivergedError, UserError
from petl_bench.train import Training, evaluate, fit
from petl_bench.train.evaluation import evaluation_batch
from petl_bench.train.schedule import learning_rate
from tests import tiny
from tests.reference import training


def fit_tiny(count=16, fit_seed=0, model_seed=0, dropout=0.0, **changes):
    """A short training run from fixed seeds: the model and its losses."""
    adapted = tiny.quantized_model(tiny.model_spec(dropout=dropout), model_seed)
    recipe = tiny.recipe(4, 8, warmup_epochs=0, **changes)
    return adapted, fit(
        Training(adapted.network, adapted.trainable, tiny.split(count), recipe, tiny.pixels(), seed=fit_seed)
    )


def test_learning_rate_of_the_published_recipe():
    # Released code (JieShibo/PETL-ViT): epochs 0 and 1 run at 1e-6 and the peak is 9.758e-4 at epoch 11.
    rates = [learning_rate(epoch, tiny.recipe(100, 64)) for epoch in range(100)]
    assert rates[0] == rates[1] == 1e-6
    assert max(rates) == rates[11] == pytest.approx(9.758e-4, abs=5e-8)


def test_learning_rate_of_the_published_recipe_equals_the_reference():
    rates = [learning_rate(epoch, tiny.recipe(100, 64)) for epoch in range(100)]
    assert rates == pytest.approx([training.learning_rate(epoch, 100) for epoch in range(100)], rel=1e-12)


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize(("epochs", "warmup"), [(100, 10), (20, 10), (30, 0)])
def test_learning_rate_equals_timms_scheduler(epochs, warmup, lag):
    """timm's step(t) after epoch e sets the rate of epoch e + 1: t = e is a lag of 1, t = e + 1 none."""
    recipe = tiny.recipe(epochs, 64, warmup_epochs=warmup, schedule_lag=lag)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=epochs,
        lr_min=recipe.min_lr,
        warmup_t=warmup,
        warmup_lr_init=recipe.warmup_lr,
    )
    expected = []
    for epoch in range(epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(max(epoch + 1 - lag, 0))
    assert [learning_rate(epoch, recipe) for epoch in range(epochs)] == pytest.approx(expected, rel=1e-12)


class Recorder(nn.Module):
    """A linear classifier of the mean color that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, tiny.CLASSES)
        self.batches = []

    def forward(self, images):
        self.batches.append(images.mean((2, 3)))
        return self.linear(self.batches[-1])


def test_incomplete_batches_are_dropped_and_every_epoch_draws_anew():
    model, data = Recorder(), tiny.split(11)
    losses = fit(Training(model, [*model.parameters()], data, tiny.recipe(6, 4), tiny.pixels(), seed=0))
    # 11 images make 2 whole batches of 4; 6 epochs, one mean loss each.
    assert [len(batch) for batch in model.batches] == [4] * 12
    assert len(losses) == 6
    means = torch.from_numpy(data.images).float().mean((2, 3)) / 255
    seen = []
    for first, second in zip(model.batches[::2], model.batches[1::2], strict=True):
        distance = torch.cdist(torch.cat([first, second]), means)
        assert distance.min(1).values.max() < 1e-5
        seen.append(distance.argmin(1).tolist())
    assert all(len(set(epoch)) == 8 for epoch in seen)  # without replacement
    assert set().union(*seen) == set(range(11))  # each image left out by chance, none for good
    assert len({tuple(epoch) for epoch in seen}) == 6


def test_each_epoch_runs_at_its_scheduled_rate():
    # AdamW with constant gradient 1 moves by lr * (1 / (1 + 1e-8)) each step: m / (sqrt(v) + eps), both
    # bias-corrected to 1 (Kingma and Ba 2015, algorithm 1); no decay here.
    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = []
            self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, images):
            self.places.append(self.bias.item())
            # Cross entropy of label 0 of the logits (-1e4 - b, 0) is 1e4 + b: gradient 1.
            one = -1e4 - self.bias
            return torch.stack([one, torch.zeros_like(one)]).expand(len(images), 2)

    model, data = Slope(), tiny.split(4)
    data = Split(data.images, np.zeros(4, np.int64))
    recipe = tiny.recipe(20, 4, weight_decay=0.0)
    fit(Training(model, [model.bias], data, recipe, tiny.pixels(), seed=0))
    moves = -np.diff([*model.places, model.bias.item()])
    np.testing.assert_allclose(moves, [training.learning_rate(epoch, 20) for epoch in range(20)], rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_images_than_a_batch_are_refused(count):
    with pytest.raises(UserError, match=f"batch_size=8.*{count} image"):
        fit_tiny(count=count)


def test_a_loss_that_is_not_finite_is_refused():
    assert issubclass(DivergedError, UserError)  # a message, not a fault of petl-bench
    with pytest.raises(DivergedError, match="not finite"):
        fit_tiny(lr=1e30)


@pytest.mark.parametrize("bits", [1, 32])
@pytest.mark.parametrize("adapter", list(ADAPTERS))
@pytest.mark.sampled(each=2)
def test_only_the_trainable_parameters_change(adapter, bits):
    adapted = tiny.quantized_model(tiny.model_spec(adapter, bits=bits))
    trainable = {id(parameter) for parameter in adapted.trainable}
    before = {name: value.clone() for name, value in adapted.network.state_dict().items()}
    start = [parameter.detach().clone() for parameter in adapted.trainable]
    recipe = tiny.recipe(3, 8, warmup_epochs=0)
    fit(Training(adapted.network, adapted.trainable, tiny.split(16), recipe, tiny.pixels(), seed=0))
    frozen = {n: p for n, p in adapted.network.named_parameters() if id(p) not in trainable}
    norms = sum(p.numel() for n, p in families.build(tiny.BACKBONE)[0].named_parameters() if "norm" in n)
    trained = {"full": tiny_backbone_size(), "bitfit": tiny_backbone_biases(), "ln_tune": norms}
    rest = 0 if adapter == "scratch" else tiny_backbone_size()
    assert sum(p.numel() for p in frozen.values()) == rest - trained.get(adapter, 0)
    for name, parameter in frozen.items():
        assert not parameter.requires_grad, name
        assert parameter.grad is None, name
        assert torch.equal(parameter, before[name]), name
    for parameter, value in zip(adapted.trainable, start, strict=True):
        assert parameter.requires_grad
        assert not torch.equal(parameter, value)


def tiny_backbone_size():
    """Weights of tests.tiny.BACKBONE, counted by hand: dim 48, 2 blocks, 8x8 patches of a 32x32 image."""
    dim, tokens = 48, 17
    embedding = dim + tokens * dim + (3 * 8 * 8 * dim + dim)
    attention = (3 * dim * dim + 3 * dim) + (dim * dim + dim)
    mlp = (4 * dim * dim + 4 * dim) + (4 * dim * dim + dim)
    return embedding + 2 * (attention + mlp + 2 * 2 * dim) + 2 * dim


def tiny_backbone_biases():
    """Its biases: of the patches; qkv, proj, fc1, fc2 and two norms in each block; of the last norm."""
    dim = 48
    return dim + 2 * (3 * dim + dim + 4 * dim + dim + 2 * dim) + dim


def test_same_seeds_give_the_same_losses_and_weights():
    first, losses = fit_tiny(dropout=0.1, model_seed=1, fit_seed=2)
    second, again = fit_tiny(dropout=0.1, model_seed=1, fit_seed=2)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(first.trainable, second.trainable, strict=True))


def test_another_seed_of_the_order_gives_other_losses():
    assert fit_tiny(fit_seed=0)[1] != fit_tiny(fit_seed=1)[1]


def test_another_seed_of_the_model_gives_other_losses():
    assert fit_tiny(model_seed=0)[1] != fit_tiny(model_seed=1)[1]


def test_training_learns_labels_that_the_images_tell():
    data = colored(32)
    adapted = tiny.quantized_model(tiny.model_spec(head="binary"))
    recipe = tiny.recipe(40, 8, lr=1e-2)
    losses = fit(Training(adapted.network, adapted.trainable, data, recipe, tiny.pixels(), seed=0))
    assert losses[-1] < losses[0] / 2
    assert evaluate(adapted.network, data, tiny.pixels()) == 1.0


def colored(count):
    """Bright images of label 1, dark ones of label 0, in turn."""
    labels = np.arange(count) % 2
    images = np.where(labels, 200, 40).astype(np.uint8)[:, None, None, None] * np.ones(
        (1, 3, 32, 32), np.uint8
    )
    return Split(images, labels.astype(np.int64))


class Brightness(nn.Module):
    """Class 1 for a mean pixel above one half, else class 0; in training mode always class 2."""

    def __init__(self):
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(0.5))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        excess = images.mean((1, 2, 3)) - self.middle
        return torch.stack([-excess, excess, torch.full_like(excess, float(self.training))], 1)


def test_evaluate_counts_over_all_batches_in_evaluation_mode():
    # One image more than a batch, so that the last batch is incomplete and must still count.
    size = evaluation_batch(tiny.BACKBONE.image_size, torch.device("cpu"))
    count = size + 1
    data, model = colored(count), Brightness()
    assert evaluate(model, data, tiny.pixels()) == 1.0
    assert model.batches == [size, 1]
    data.labels[:10] = 2  # ten labels made wrong, and the one of the last batch
    data.labels[-1] = 2
    assert evaluate(model.train(), data, tiny.pixels()) == (count - 11) / count
