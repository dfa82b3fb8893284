"""The mean of a training's last states: its weights, its place in a run, and what it leaves as it was."""

import dataclasses
import json

import pytest
import torch

from petl_bench import data
from petl_bench.config import plan
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.run.metadata import recipe_hash
from petl_bench.run.training import train
from petl_bench.train import Average, Hooks, Pixels, Training, TrainingState, fit
from petl_bench.types import (
    TRAINVAL,
    AverageSpec,
    run_id,
    spec_from_dict,
    spec_to_dict,
    stored_id,
)
from tests.made import WEIGHTS
from tests.test_protocols import made

LOSSES = [4.0, 3.0, 2.0, 1.0, 0.5, 0.25]


def averaged(spec, states, losses=LOSSES):
    """The parameter at the end of a training that goes through `states`."""
    average = Average(spec, len(states))
    parameter = torch.nn.Parameter(torch.zeros(()))
    for done, state in enumerate(states, 1):
        parameter.data.fill_(state)
        average.after_epoch(losses[:done], [parameter])
    return parameter.item()


@pytest.mark.parametrize(
    ("spec", "weights"),
    [  # weights of the states after epochs 1 to 6: w_i = q_i^p / sum_j q_j^p
        (AverageSpec(3, 1, "loss", 0.0), [0, 0, 0, 1, 1, 1]),
        (AverageSpec(3, 1, "loss", 1.0), [0, 0, 0, 1, 2, 4]),
        (AverageSpec(3, 1, "loss", 2.0), [0, 0, 0, 1, 4, 16]),
        (AverageSpec(3, 1, "step", 2.0), [0, 0, 0, 16, 25, 36]),
        # Every second epoch: the losses since the state before are 3.5, 1.5 and 0.375.
        (AverageSpec(9, 2, "loss", 1.0), [0, 1 / 3.5, 0, 1 / 1.5, 0, 1 / 0.375]),
        (AverageSpec(2, 2, "step", 1.0), [0, 0, 0, 4, 0, 6]),
    ],
)
def test_weights_are_those_of_the_formula(spec, weights):
    states = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    expected = sum(w * s for w, s in zip(weights, states, strict=True)) / sum(weights)
    assert averaged(spec, states) == pytest.approx(expected, rel=1e-5)


def test_a_loss_near_zero_leaves_weight_to_others():
    # The floor of 1e-3 makes both equal.
    assert averaged(AverageSpec(2, 1), [1.0, 3.0], [1e-4, 1e-9]) == pytest.approx(2.0)


OPTIONS = ["train.epochs=3", "train.warmup_epochs=0", "hidden=4", "bits=1", "scale=1", "protocol=fixed"]


def planned(*overrides):
    (spec,) = plan(["sweep=none", "task=digits", *OPTIONS, *overrides]).runs
    return spec


def test_a_run_ends_at_the_mean_of_its_last_states_head_included(tmp_path):
    tree = made(tmp_path, {"train": 96, "val": 32, "test": 16})
    average = {"train__average__checkpoints": 2, "train__average__every": 1, "train__epochs": 3}
    spec, runtime = tree.spec(protocol="fixed", scale=1, **average), tree.runtime()
    found = train(spec, runtime).adapted.trainable
    plain = assemble(spec.model, spec.seed, spec.train.drop_path)
    plain.prepare()
    states, state = [], TrainingState()

    class Recorder(Hooks):
        def after_epoch(self, epoch):
            states.append([parameter.detach().clone() for parameter in plain.trainable])

    images = data.load(spec.task, TRAINVAL, spec.backbone.image_size, runtime.cache)
    pixels = Pixels(spec.train.normalization, spec.backbone.image_size, torch.device("cpu"))
    fit(
        Training(
            plain.network,
            plain.trainable,
            images,
            spec.train,
            pixels,
            spec.seed,
            hooks=Recorder(),
            state=state,
        )
    )
    weights = [1 / loss for loss in state.losses[-2:]]
    for value, *held in zip(found, *states[-2:], strict=True):
        expected = sum(w * value for w, value in zip(weights, held, strict=True)) / sum(weights)
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, held[-1])


def test_off_it_is_the_run_that_it_was():
    spec = planned()
    old = json.loads(json.dumps(spec_to_dict(spec)))
    del old["train"]["average"]
    assert spec_from_dict(old) == spec
    assert stored_id(old, WEIGHTS) == run_id(spec, WEIGHTS)
    same = planned("train.average.every=3", "train.average.power=2")
    assert same == spec
    other = planned("train.average.checkpoints=2", "train.average.every=1")
    assert run_id(other, WEIGHTS) != run_id(spec, WEIGHTS)
    assert recipe_hash(other) != recipe_hash(spec)


def test_a_shortened_recipe_has_as_many_states():
    (spec,) = plan(["sweep=none", "task=digits", "train.epochs=40", "train.average.checkpoints=3"]).runs
    assert spec.train.shortened(0.5).average == dataclasses.replace(spec.train.average, every=5)
    assert spec.train.shortened(0.05).average == dataclasses.replace(
        spec.train.average, every=1, checkpoints=2
    )
    assert spec.train.shortened(0.025).average == AverageSpec()  # one epoch is its own mean


@pytest.mark.parametrize(
    "option",
    ["checkpoints=1", "checkpoints=-2", "checkpoints=7", "every=0", "by=accuracy", "power=-1", "power=21"],
)
@pytest.mark.sampled(3)
def test_options_out_of_range_are_refused(option):
    chosen = {"checkpoints": "2", "every": "1"} | dict([option.split("=")])  # of 6 epochs
    overrides = [f"train.average.{key}={value}" for key, value in chosen.items()]
    with pytest.raises(UserError, match=f"train.average.{option.partition('=')[0]}"):
        plan(["sweep=none", "task=digits", "scale=1", *overrides])
