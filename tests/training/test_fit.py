"""Training climbs the bound that it states, moves what it should and nothing else."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from fitting import EXACT, bound_of, counting, equal, halves, moved, moves, quiet, trained
from linear_gaussian import (
    drawn,
    guided,
    kl_to_posterior,
    learnable,
    rotated,
    same_state,
    state_of,
)
from pyro.infer import (
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from bayesvae import Pair, data, families, fit, guides
from bayesvae.objectives import elbo
from bayesvae.pairs import PPCA, ppca
from bayesvae.training import RowAdam


@pytest.fixture
def x():
    return drawn(rotated(), 24)


# The truth --------------------------------------------------------------------------------------


def test_fit_reaches_the_closed_form_maximum_likelihood_and_does_not_pass_it():
    x = drawn(rotated(), 400)
    pair, steps = learnable(), 1500
    quiet(
        pair,
        x,
        partial(elbo, analytic_kl=True),
        steps=steps,
        batch_size=200,
        optimizer=partial(Adam, lr=2e-2, fused=True),
        scheduler=lambda o: LambdaLR(o, lambda step: 1 - step / steps),
    )
    model, guide = halves(pair)
    with torch.no_grad():
        divergence = kl_to_posterior(model, guide.posterior(x), x).mean()
        reached = model.log_evidence(x).mean() - divergence
        best = PPCA.maximum_likelihood(x, 2).log_evidence(x).mean()
    assert reached <= best + 1e-9
    assert reached > best - 0.05


def test_history_is_in_nats_per_datum_whatever_the_batch_and_the_number_of_data(x):
    # Under the exact posterior every draw's log-weight is log p(x) itself.
    still = {"epochs": 2, "optimizer": partial(SGD, lr=0.0), "validation": drawn(rotated(), 11, 2)}
    model = rotated()
    truth = model.log_evidence(x).mean().item(), model.log_evidence(still["validation"]).mean()
    for objective in (None, elbo, TraceMeanField_ELBO()):
        for batch_size in (4, 24):
            history = quiet(ppca(model), x, objective, batch_size=batch_size, **still)
            for row in history.epochs:
                assert row.objective == pytest.approx(truth[0], abs=1e-9)
                assert row.validation == pytest.approx(truth[1].item(), abs=1e-9)


def test_training_raises_the_objective(x):
    _, history = trained(x, epochs=30)
    assert history.epochs[-1].objective > history.epochs[0].objective + 1


def test_until_is_asked_after_every_step_and_ends_the_training_there(x):
    asked = []

    def until(step):
        asked.append(step)
        return step == 5

    state, history = trained(x, until=until)  # three steps an epoch
    assert asked == [1, 2, 3, 4, 5]
    assert [row.step for row in history.epochs] == [3, 5]
    equal(state, trained(x, steps=5)[0])


def test_a_limit_that_comes_before_until_ends_the_training(x):
    state, history = trained(x, steps=4, until=lambda step: False)
    assert history.epochs[-1].step == 4
    equal(state, trained(x, steps=4)[0])


# One step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [None, elbo])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_a_step_follows_the_gradient_of_likelihood_minus_weighted_kl(x, objective, weight):
    pair = learnable()
    expected = moves(pair, lambda pair: bound_of(pair, x, weight))
    equal(moved(pair, x, objective=objective, kl_weight=weight), expected, **EXACT)


def test_kl_weight_of_a_step_is_the_function_of_that_step(x):
    seen = []

    def weight(step):
        seen.append(step)
        return 0.5 * step

    equal(
        trained(x, steps=1, kl_weight=weight)[0],
        trained(x, steps=1, kl_weight=0.0)[0],
    )
    _, history = trained(x, kl_weight=weight)
    assert seen == [0, *range(9)]
    assert [row.kl_weight for row in history.epochs] == [1.0, 2.5, 4.0]


def norm_of(changes):
    return torch.cat([change.flatten() for change in changes.values()]).norm()


def test_clip_norm_bounds_the_norm_of_all_parameters_together_and_keeps_the_direction(x):
    pair = learnable()
    expected = moves(pair, lambda pair: bound_of(pair, x))
    start = state_of(pair)
    clipped = moved(pair, x, clip_norm=0.3)
    assert norm_of(clipped).item() == pytest.approx(0.3, rel=1e-9)
    equal(clipped, {n: 0.3 / norm_of(expected) * g for n, g in expected.items()}, **EXACT)
    pair.load_state_dict(start)
    equal(moved(pair, x, clip_norm=1e6), expected, **EXACT)


def test_clip_norm_counts_rows_of_single_data_too(x):
    pair = ppca(rotated(), guides.PerDatapoint(len(x), families.Normal(2)))
    rows = partial(SGD, lr=1.0)
    changes = moved(pair, x, clip_norm=0.3, row_optimizer=rows)
    assert norm_of(changes).item() == pytest.approx(0.3, rel=1e-9)
    assert all(change.any() for change in changes.values())


@pytest.mark.parametrize(("steps", "ends"), [(1, [1]), (3, [3]), (7, [3, 6, 7])])
def test_steps_are_exact_and_an_epoch_cut_short_is_still_recorded(x, steps, ends):
    log, pair = [], learnable()
    history = quiet(pair, x, steps=steps, batch_size=8, optimizer=counting(pair, log))
    assert len(log) == steps
    assert [row.step for row in history.epochs] == ends
    assert [row.epoch for row in history.epochs] == list(range(1, len(ends) + 1))


def test_history_has_one_row_an_epoch_with_a_last_short_batch_counted_as_a_step(x):
    _, history = trained(x, epochs=4, batch_size=10)
    assert [row.step for row in history.epochs] == [3, 6, 9, 12]
    assert all(math.isnan(row.validation) for row in history.epochs)
    seconds = [row.seconds for row in history.epochs]
    assert sorted(seconds) == seconds


@pytest.mark.parametrize("inner_steps", [0, 2])
def test_scheduler_steps_once_a_batch_for_every_optimiser(x, inner_steps):
    made = []

    def scheduler(optimizer):
        made.append(LambdaLR(optimizer, lambda step: 1 / (1 + step)))
        return made[-1]

    pair = ppca(rotated(), guides.PerDatapoint(len(x), families.Normal(2)))
    quiet(pair, x, steps=5, batch_size=8, scheduler=scheduler, inner_steps=inner_steps)
    assert [schedule.last_epoch for schedule in made] == [5, 5]
    assert {type(schedule.optimizer) for schedule in made} == {Adam, RowAdam}


# Sources and objectives -------------------------------------------------------------------------


def test_a_tensor_and_a_tensor_data_set_train_alike(x):
    equal(trained(x)[0], trained(TensorDataset(x, torch.zeros(len(x))))[0])


def test_loaders_in_order_train_alike(x):
    ours = data.Loader(x, 8)
    # A generator of its own, for a DataLoader draws a seed for its workers at each pass.
    theirs = DataLoader(TensorDataset(x), 8, generator=torch.Generator())
    equal(trained(ours)[0], trained(theirs)[0])


def test_loaders_keep_their_batch_size(x):
    _, history = trained(data.Loader(x, 6), batch_size=8)
    assert history.epochs[0].step == 4


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (Trace_ELBO(), elbo),
        (TraceMeanField_ELBO(), partial(elbo, analytic_kl=True)),
        (
            Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
            partial(elbo, particles=3),
        ),
    ],
)
def test_pyros_objective_and_ours_train_alike_under_one_seed(x, theirs, ours):
    first, second = trained(x, objective=theirs), trained(x, objective=ours)
    equal(first[0], second[0], rtol=1e-8, atol=1e-8)
    values = [[row.objective for row in history.epochs] for _, history in (first, second)]
    assert values[0] == pytest.approx(values[1], rel=1e-8)


def test_no_objective_means_trace_elbo(x):
    equal(trained(x)[0], trained(x, objective=Trace_ELBO())[0])


def test_subsampling_weighs_a_shared_latent_by_the_data_and_not_by_the_batch(x):
    # The expected gradient of a batch's bound is that of all data, whatever the batch size.
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.3))

        def model(self, x):
            mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

        def guide(self, x):
            pyro.sample("mean", dist.Normal(self.loc, 1e-9))

    x = x[:, 0]
    shared = Shared()
    pair = Pair(shared.model, shared.guide)
    before = shared.loc.item()
    halves = DataLoader(TensorDataset(x), batch_sampler=[list(range(12))])
    quiet(pair, halves, elbo, steps=1, optimizer=partial(SGD, lr=1.0))
    expected = (x[:12].mean() - before) - before / 4 / 24
    assert shared.loc.item() - before == pytest.approx(expected.item(), abs=1e-6)


# Around the fit ---------------------------------------------------------------------------------


def test_a_fit_leaves_no_trace_in_pyros_global_state(x):
    pyro.clear_param_store()
    with pyro.validation_enabled(True):
        quiet(learnable(), x, steps=2)
        assert list(pyro.get_param_store().keys()) == []
        assert torch.distributions.Distribution._validate_args


def test_two_pairs_with_equal_names_do_not_share_what_they_learn(x):
    first, second = learnable(), learnable()
    second.load_state_dict(first.state_dict())
    before = state_of(second)
    quiet(first, x, steps=3)
    assert same_state(second, before)
    assert not same_state(first, before)


def test_a_guide_that_is_a_function_trains_the_modules_in_its_closure(x):
    family = families.Normal(2)
    rows = nn.Linear(5, family.size)
    pair = guided(rotated(), lambda x: family(rows(x)))
    before = rows.weight.detach().clone()
    quiet(pair, x, steps=1)
    assert not torch.equal(rows.weight, before)


def test_progress_goes_to_standard_error_in_nats_per_datum(x, capsys):
    fit(learnable(), x, epochs=1, validation=x)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nats per datum" in shown.err
    quiet(learnable(), x, epochs=1)
    assert capsys.readouterr() == ("", "")
