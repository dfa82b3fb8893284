"""Random changes of whole batches: mixup, cutmix, smoothing, erasing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from petl_bench.errors import UserError
from petl_bench.train.augment import BatchAugmentation
from petl_bench.types import AugmentSpec
from tests import tiny
from tests.test_augment import generators_seeded

COUNT, CLASSES, SIDE = 8, 5, 16
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


def mixing(seed: int = 0, batch_size: int = COUNT, **augment: float) -> BatchAugmentation:
    recipe = tiny.recipe(1, batch_size, augment=AugmentSpec(**augment))
    return BatchAugmentation(recipe, CLASSES, seed, torch.device("cpu"))


def flat_images() -> Tensor:
    """Image i is of the one value i + 1 in its first channel, so that a mixture tells its parts."""
    values = torch.arange(1.0, COUNT + 1)
    return values[:, None, None, None].expand(COUNT, 3, SIDE, SIDE).clone()


def soft_loss(logits: Tensor, labels: Tensor, share: float, smoothing: float) -> float:
    """Cross-entropy of share * own + (1 - share) * partner, each smoothed; partners by reversed order."""
    hot = torch.full((len(labels), CLASSES), smoothing / CLASSES, dtype=torch.float64)
    hot[torch.arange(len(labels)), labels] += 1 - smoothing
    target = share * hot + (1 - share) * hot.flip(0)
    log = logits.double() - torch.logsumexp(logits.double(), 1, keepdim=True)
    return -(target * log).sum(1).mean().item()


def own_share(mixed: Tensor) -> float:
    """How much of each image is its own, told from its pixels: images are `flat_images`."""
    own, partner = flat_images(), flat_images().flip(0)
    shares = ((mixed - partner) / (own - partner)).mean((1, 2, 3))
    assert shares.max() - shares.min() < 1e-4  # one share for the batch
    return shares.mean().item()


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from([(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)]),
    smoothing=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_the_loss_of_mixed_images_is_of_targets_mixed_alike(
    seed: int, kind: tuple[float, float], smoothing: float
) -> None:
    mix = mixing(seed, mixup=kind[0], cutmix=kind[1], smoothing=smoothing)
    images, target = mix(flat_images(), LABELS)
    share = own_share(images)
    logits = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(1))
    expected = soft_loss(logits, LABELS, share, smoothing)
    assert mix.loss(logits, target).item() == pytest.approx(expected, abs=1e-4)
    cut = (images == flat_images()) | (images == flat_images().flip(0))
    if kind[1] == 0:
        # Mixup: one weight everywhere, the Beta(0.8, 0.8) draw that follows timm's draw of whether to mix.
        state = generators_seeded(np.random.SeedSequence((seed, 1)).generate_state(1).item())
        np.random.rand()
        drawn = np.random.beta(kind[0], kind[0])
        state()
        assert share == pytest.approx(drawn, abs=1e-4)
    elif kind[0] == 0:
        assert cut.all()  # cutmix: every pixel is one or the other's


def test_with_both_some_batches_are_mixed_and_some_cut() -> None:
    mix, cut = mixing(mixup=0.8, cutmix=1.0), []
    for _ in range(40):
        images, _ = mix(flat_images(), LABELS)
        cut.append(bool(((images == flat_images()) | (images == flat_images().flip(0))).all()))
    assert {True, False} == set(cut)


def test_batches_depend_on_seed_and_step_alone() -> None:
    def shares(seed: int) -> list[float]:
        mix = mixing(seed, mixup=0.8)
        return [own_share(mix(flat_images(), LABELS)[0]) for _ in range(4)]

    first = shares(0)
    assert first == shares(0)
    assert len({*first, *shares(1)}) == 8


@given(smoothing=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_label_smoothing_equals_its_closed_form(smoothing: float, seed: int) -> None:
    """(1 - s) * CE(label) + s * mean over classes of CE(class): Szegedy et al. 2016, section 7."""
    mix = mixing(smoothing=smoothing)
    logits = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))
    images, target = mix(flat_images(), LABELS)
    assert torch.equal(images, flat_images())
    log = logits.double() - torch.logsumexp(logits.double(), 1, keepdim=True)
    entropy = -((1 - smoothing) * log[torch.arange(COUNT), LABELS] + smoothing * log.mean(1)).mean()
    assert mix.loss(logits, target).item() == pytest.approx(entropy.item(), rel=1e-5)


@pytest.mark.parametrize("augment", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_an_odd_batch_cannot_be_mixed(augment: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size=7.*must be even"):
        tiny.recipe(1, 7, augment=AugmentSpec(**augment))
    assert mixing(batch_size=7, smoothing=0.1, erasing=0.5) is not None  # which need no pairs


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_erasing_changes_one_rectangle_of_an_image(seed: int) -> None:
    """Of 2 % to a third of the area, as Zhong et al. 2017 have it; sides are rounded to whole pixels."""
    images, target = mixing(seed, erasing=1.0)(flat_images(), LABELS)
    assert torch.equal(target, LABELS)
    changed = (images != flat_images()).any(1)
    erased = 0
    for mask in changed:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if not len(rows):
            continue  # timm gives up after ten rectangles that do not fit
        erased += 1
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        height, width = box.shape
        assert (height - 0.5) * (width - 0.5) <= SIDE * SIDE / 3
        assert (height + 0.5) * (width + 0.5) >= 0.02 * SIDE * SIDE
    assert erased >= COUNT - 1


def test_erasing_happens_as_often_as_it_is_set() -> None:
    mix, erased = mixing(erasing=0.25), 0
    for _ in range(100):
        images, _ = mix(flat_images(), LABELS)
        erased += int((images != flat_images()).flatten(1).any(1).sum())
    # 800 images at 0.25: mean 200, deviation 12.2; five deviations either way.
    assert 139 <= erased <= 261
