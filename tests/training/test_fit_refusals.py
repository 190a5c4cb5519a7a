"""Fit refuses what would train nothing or the wrong thing, and says where a loss broke."""

import math
from functools import partial

import pytest
import torch
from fitting import halves, quiet, table
from linear_gaussian import drawn, learnable, rotated, state_of
from pyro.infer import (
    RenyiELBO,
    TraceGraph_ELBO,
)
from torch import nn
from torch.optim import SGD, Adam

from bayesvae import data, families, guides
from bayesvae.core import files
from bayesvae.objectives import elbo
from bayesvae.pairs import ppca


@pytest.fixture
def x():
    return drawn(rotated(), 24)


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [RenyiELBO(), TraceGraph_ELBO()])
def test_objectives_without_a_differentiable_loss_are_refused_by_name(x, objective):
    with pytest.raises(TypeError, match=f"{type(objective).__name__} has no differentiable_loss"):
        quiet(learnable(), x, objective)


def test_what_is_no_objective_is_refused(x):
    with pytest.raises(TypeError, match=r"An objective is a function .* got str"):
        quiet(learnable(), x, "elbo")


def test_an_optimiser_that_is_already_made_is_refused_with_the_remedy(x):
    pair = learnable()
    with pytest.raises(TypeError, match=r"a function from parameters .* got Adam. .*partial"):
        quiet(pair, x, optimizer=Adam(pair.parameters()))


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"steps": 0}, {"inner_steps": -1}])
def test_no_steps_are_refused(x, settings):
    with pytest.raises(ValueError, match="at least one step and inner_steps >= 0; got"):
        quiet(learnable(), x, **settings)


def test_turns_need_parameters_that_are_the_models_alone(x):
    with pytest.raises(ValueError, match="others of the model alone; got 3 and 0"):
        quiet(ppca(rotated()), x, inner_steps=1)


def test_a_pair_with_parameters_that_nothing_depends_on_is_refused_and_frozen_ones_are_not(x):
    pair = learnable()
    _, guide = halves(pair)
    guide.forgotten = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"get no gradient .*forgotten"):
        quiet(pair, x)
    guide.forgotten.requires_grad_(False)
    quiet(pair, x, steps=1)
    assert torch.equal(guide.forgotten, torch.ones(3))


def test_frozen_parameters_stay_while_the_others_move(x):
    pair = learnable()
    model, _ = halves(pair)
    model.weight.requires_grad_(False)
    before = state_of(pair)
    quiet(pair, x, steps=5)
    after = pair.state_dict()
    unmoved = {name for name in before if torch.equal(before[name], after[name])}
    assert unmoved == {
        name for name in before if name.endswith(".weight") and "layers" not in name
    }
    assert len(unmoved) == 1


# Losses that are not finite ---------------------------------------------------------------------


class Broken:
    """A transform that spoils one datum of a batch from a given call on."""

    def __init__(self, call):
        self.call, self.calls = call, 0

    def __call__(self, x):
        self.calls += 1
        if self.calls < self.call:
            return x
        return torch.where(torch.arange(len(x)).unsqueeze(-1) == 1, 1e200, x)


def test_a_loss_that_is_not_finite_names_step_and_site_and_spares_the_files(x, tmp_path):
    pair = ppca(rotated(), guides.PerDatapoint(len(x), families.Normal(2)))
    # One batch goes to the check, three to the first epoch, and the sixth is broken.
    source = data.Loader(x, 8, transform=Broken(6))
    cause = r"inf at step 4\. Cause: Site 'x' of the model: 12\.5%"
    with pytest.raises(FloatingPointError, match=cause):
        quiet(pair, source, elbo, epochs=9, out=tmp_path)
    saved = files.load_state(tmp_path / "last.pt")
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert all(torch.isfinite(value).all() for value in pair.state_dict().values())
    rows = table(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["3"]


def test_a_step_that_was_too_long_is_told_from_bad_data(x):
    with pytest.raises(FloatingPointError, match=r"at step 1\. Cause: parameters \['model_part"):
        quiet(learnable(), x, elbo, optimizer=partial(SGD, lr=math.inf))


def test_a_weight_that_is_not_finite_blames_no_site(x):
    with pytest.raises(FloatingPointError, match=r"at step 2.*no site"):
        quiet(learnable(), x, elbo, kl_weight=lambda step: math.nan if step == 2 else 1.0)
