"""Training climbs the bound that it states, moves what it should and nothing else."""

import csv
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from rulers import drawn, guided, kl_to_posterior, learnable, rotated, same_state, state_of
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from bayesvae import Pair, checkpoint, data, families, fit, guides
from bayesvae.objectives import elbo, linear_warmup
from bayesvae.optimizers import RowAdam
from bayesvae.pairs import PPCA, ppca
from bayesvae.trace import log_terms

EXACT = {"rtol": 1e-10, "atol": 1e-10}
quiet = partial(fit, progress=False)


@pytest.fixture
def x():
    return drawn(rotated(), 24)


def trained(x, seed=0, **settings):
    """A fresh pair after the same start: state at the end and history."""
    torch.manual_seed(seed)
    pair = learnable()
    settings = {"epochs": 3, "batch_size": 8, "optimizer": partial(Adam, lr=1e-2), **settings}
    torch.manual_seed(seed)
    history = quiet(pair, x, **settings)
    return state_of(pair), history


def halves(pair):
    """The modules of the model and of the guide."""
    return pair.model_part_0, pair.guide_part_1


def table(path):
    """The lines of a CSV file by column."""
    return list(csv.DictReader(path.read_text().splitlines()))


def equal(first, second, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance)


def whole(x):
    """One batch of all data, in order: no random numbers go into it."""
    return data.Loader(x, len(x))


def bound_of(pair, x, kl_weight=1.0):
    """One-draw bound of log p(x), nats per datum, from the densities themselves."""
    model, guide = halves(pair)
    q = guide.posterior(x)
    z = q.rsample()
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1).log_prob(z)
    mean = z @ model.weight.T + model.loc
    likelihood = dist.Normal(mean, model.scale).to_event(1).log_prob(x)
    return (likelihood + kl_weight * (prior - q.log_prob(z))).mean()


def moves(pair, bound, seed=5):
    """What one step of gradient ascent of length one must add to each parameter."""
    torch.manual_seed(seed)
    named = dict(pair.named_parameters())
    gradients = torch.autograd.grad(bound(pair), list(named.values()), allow_unused=True)
    zipped = zip(named, gradients, named.values(), strict=True)
    return {name: torch.zeros_like(p) if g is None else g for name, g, p in zipped}


def moved(pair, x, seed=5, **settings):
    """What one step of `fit` with plain gradient ascent of length one adds to each parameter."""
    before = state_of(pair)
    settings = {"steps": 1, "optimizer": partial(SGD, lr=1.0), **settings}
    torch.manual_seed(seed)
    quiet(pair, whole(x), **settings)
    return {name: value - before[name] for name, value in pair.state_dict().items()}


# The truth -------------------------------------------------------------------------------------


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


# One step --------------------------------------------------------------------------------------


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


# Steps, epochs, schedules ----------------------------------------------------------------------


class Counted(SGD):
    """Counts its steps and keeps the names of what each one moves."""

    def __init__(self, parameters, log, names, lr=1e-3):
        super().__init__(parameters, lr=lr)
        self.log, self.names = log, names

    def step(self, closure=None):
        held = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]
        super().step()
        self.log.append({self.names[id(p)] for p, old in held if not torch.equal(p, old)})


def counting(pair, log, **settings):
    names = {id(p): name for name, p in pair.named_parameters()}
    return partial(Counted, log=log, names=names, **settings)


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


# Sources and objectives ------------------------------------------------------------------------


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


# Refusals --------------------------------------------------------------------------------------


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


# Losses that are not finite --------------------------------------------------------------------


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
    saved = checkpoint.load_state(tmp_path / "last.pt")
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


# Validation, states and files ------------------------------------------------------------------


@pytest.mark.parametrize("validation", ["tensor", "shuffling loader"])
def test_validation_leaves_training_as_it_is_without_it(x, validation):
    unseen = drawn(rotated(), 10, 3)
    if validation == "shuffling loader":
        unseen = DataLoader(TensorDataset(unseen), 4, shuffle=True)
    equal(trained(x)[0], trained(x, validation=unseen)[0])


class Spy(nn.Module):
    """Remembers in which mode it was run on how many data."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.training))
        return x


def test_validation_runs_in_evaluation_mode_and_training_in_training_mode(x):
    pair = learnable()
    _, guide = halves(pair)
    guide.network = nn.Sequential(spy := Spy(), guide.network)
    pair.eval()
    quiet(pair, x, epochs=2, batch_size=24, validation=drawn(rotated(), 7))
    # The pair is looked at in evaluation mode first; then come two steps.
    assert [mode for size, mode in spy.seen if size == 24][-2:] == [True, True]
    assert {mode for size, mode in spy.seen if size == 7} == {False}


@pytest.mark.parametrize("batch_size", [8, 1])
@pytest.mark.parametrize("frozen", [False, True])
def test_validation_of_rows_that_belong_to_other_data_is_refused(x, batch_size, frozen):
    # Positions 0, 1, ... of the validation data are not those of the training data.
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    guide.rows.requires_grad_(not frozen)
    with pytest.raises(ValueError, match="row"):
        quiet(
            ppca(rotated(), guide),
            x,
            epochs=1,
            batch_size=batch_size,
            validation=drawn(rotated(), 10, 3),
        )


def test_best_is_the_epoch_of_the_highest_validation_score_and_last_is_the_end(x, tmp_path):
    # Descent: the first epoch is the best.
    worse = partial(Adam, lr=3e-2, maximize=True)
    state, history = trained(x, optimizer=worse, epochs=4, validation=x, out=tmp_path)
    scores = [row.validation for row in history.epochs]
    assert scores == sorted(scores, reverse=True)
    assert history.best == history.epochs[0]
    equal(history.last_state, state)
    equal(checkpoint.load_state(tmp_path / "last.pt"), state)
    equal(checkpoint.load_state(tmp_path / "best.pt"), history.best_state)
    after_one, _ = trained(x, optimizer=worse, epochs=1)
    equal(history.best_state, after_one)
    assert not torch.equal(*(s["model_part_0.loc"] for s in (history.best_state, state)))


def test_without_validation_best_is_judged_by_the_objective(x):
    _, history = trained(x, optimizer=partial(Adam, lr=3e-2, maximize=True))
    assert history.best == history.epochs[0]
    assert history.best.score == history.best.objective


def test_objectives_of_a_warm_up_are_not_compared(x):
    # A small KL weight makes a high objective; that is no reason to keep those epochs.
    _, history = trained(
        x,
        epochs=5,
        objective=partial(elbo, particles=500, analytic_kl=True),
        optimizer=partial(SGD, lr=0.0),
        kl_weight=linear_warmup(9),
    )
    assert history.epochs[0].objective > history.epochs[-1].objective
    assert history.best in history.epochs[3:]


def test_files_hold_the_metrics_and_states_that_give_identical_log_weights(x, tmp_path):
    pair = learnable()
    history = quiet(pair, x, epochs=3, validation=x, out=tmp_path / "run")
    names = ["best.pt", "last.pt", "metrics.csv"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    rows = table(tmp_path / "run" / "metrics.csv")
    for row, epoch in zip(rows, history.epochs, strict=True):
        assert {name: float(text) for name, text in row.items()} == epoch._asdict()

    def log_weights(pair):
        torch.manual_seed(1)
        with torch.no_grad():
            return log_terms(pair.model, pair.guide, x, particles=4).local.log_weight

    other = learnable()
    assert not torch.equal(log_weights(other), log_weights(pair))
    other.load_state_dict(checkpoint.load_state(tmp_path / "run" / "last.pt"))
    assert torch.equal(log_weights(other), log_weights(pair))


def test_states_in_the_history_are_copies(x):
    _, history = trained(x, epochs=2)
    pair = learnable()
    history = quiet(pair, x, epochs=2)
    kept = {name: value.clone() for name, value in history.last_state.items()}
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.zero_()
    equal(history.last_state, kept)


# Turns -----------------------------------------------------------------------------------------


def test_inner_steps_move_the_guide_alone_and_outer_ones_the_model_alone(x):
    pair, log = learnable(), []
    parts = {n: {name for name, _ in p.named_parameters(n)} for n, p in pair.named_children()}
    model, guide = parts["model_part_0"], parts["guide_part_1"]
    quiet(pair, x, steps=2, inner_steps=3, optimizer=counting(pair, log))
    assert log == [guide, guide, guide, model] * 2


def test_turns_climb_the_same_bound_one_after_the_other(x):
    pair = learnable()
    start = state_of(pair)
    changes = moved(pair, x, inner_steps=1, seed=5)
    # By hand: the guide's step first, the model's from where the guide then is.
    pair.load_state_dict(start)
    torch.manual_seed(5)
    for part in ("guide_part_1", "model_part_0"):
        own = [p for name, p in pair.named_parameters() if name.startswith(part)]
        gradients = torch.autograd.grad(bound_of(pair, x), own)
        with torch.no_grad():
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.add_(gradient)
    equal(changes, {n: v - start[n] for n, v in pair.state_dict().items()}, **EXACT)


# Rows of single data ---------------------------------------------------------------------------


def batches_of(x, *positions):
    return DataLoader(TensorDataset(x), batch_sampler=list(positions), generator=torch.Generator())


def rows_after(x, steps, *positions, **settings):
    torch.manual_seed(0)
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    quiet(ppca(rotated(), guide), batches_of(x, *positions), steps=steps, **settings)
    return guide.rows.detach()


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_rows_move_only_while_their_datum_is_in_the_batch_whatever_the_momentum(x, clip_norm):
    settings = {"clip_norm": clip_norm}
    order = [0, 1], [2, 3], [3, 2], [2, 3]
    first, last = (rows_after(x, steps, *order, **settings) for steps in (1, 4))
    assert torch.equal(last[4:], torch.zeros_like(last[4:]))
    assert (first[:2] != 0).all()
    assert torch.equal(first[:2], last[:2])
    assert (last[2:4] != 0).all()


def test_rows_stay_in_the_models_turn(x):
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    pair, log = ppca(rotated(), guide), []
    rows = counting(pair, log, lr=0.1)
    quiet(pair, x, steps=2, inner_steps=2, row_optimizer=rows)
    assert log == [{"guide_part_1.rows"}, {"guide_part_1.rows"}, set()] * 2


def test_a_dense_adam_would_have_moved_a_row_without_a_gradient():
    table = nn.Parameter(torch.zeros(2, 3))
    optimizer = Adam([table], lr=0.1)
    for row in (0, 1):
        optimizer.zero_grad()
        table[row].sum().backward()
        optimizer.step()
        if row == 0:
            before = table[0].detach().clone()
    assert not torch.equal(table[0], before)


def embedded(rows, at, gradient):
    """A sparse gradient for a table of so many rows."""
    shape = rows, gradient.shape[1]
    return torch.sparse_coo_tensor(torch.tensor([at]), gradient, shape, check_invariants=True)


def test_row_adam_is_adam_for_rows_in_every_batch_and_whenever_another_row_was_seen():
    ours, theirs = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    settings = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-6}
    rows = RowAdam([ours], **settings)
    # One dense Adam a row, stepped when its row is seen, is what RowAdam has to be.
    each = [nn.Parameter(row.clone()) for row in theirs.detach()]
    dense = [Adam([row], **settings) for row in each]
    for step in range(25):
        at = [0, 1] if step < 10 else [0, 2, 1 + 2 * (step % 2)]
        at = sorted(set(at))
        gradient = torch.randn(len(at), 3)
        ours.grad = embedded(4, at, gradient)
        rows.step()
        for row, value in zip(at, gradient, strict=True):
            each[row].grad = value
            dense[row].step()
    torch.testing.assert_close(ours.detach(), torch.stack(each).detach(), **EXACT)


def test_row_adam_adds_up_a_row_that_is_in_the_batch_twice():
    twice, once = (nn.Parameter(torch.zeros(3, 2)) for _ in range(2))
    gradient = torch.tensor([[1.0, 2.0], [0.5, -3.0]])
    twice.grad = embedded(3, [1, 1], gradient)
    once.grad = embedded(3, [1], gradient.sum(0, keepdim=True))
    for table in (twice, once):
        RowAdam([table]).step()
    torch.testing.assert_close(twice, once, rtol=0, atol=0)


def test_row_adam_refuses_dense_gradients():
    table = nn.Parameter(torch.zeros(3, 2))
    table.grad = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"sparse gradients; got a dense one of shape \(3, 2\)"):
        RowAdam([table]).step()


def test_rows_climb_to_the_optimum_of_their_family(x):
    model = rotated()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    steps = 600
    quiet(
        ppca(model, guide),
        x,
        partial(elbo, analytic_kl=True, particles=4),
        steps=steps,
        batch_size=12,
        row_optimizer=partial(RowAdam, lr=0.1),
        scheduler=lambda o: LambdaLR(o, lambda step: (1 - step / steps) ** 2),
    )
    excess = kl_to_posterior(model, guide.posterior(x, torch.arange(len(x))), x)
    excess = excess - model.diagonal_gap()
    assert (excess > -1e-10).all()
    assert excess.mean() < 0.01


@pytest.mark.parametrize("before", [False, True])
def test_the_sparse_flag_is_put_back_also_after_an_error(x, before):
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    guide.sparse = before
    quiet(ppca(rotated(), guide), x, steps=1)
    assert guide.sparse is before
    with pytest.raises(FloatingPointError):
        quiet(ppca(rotated(), guide), x, elbo, kl_weight=math.nan)
    assert guide.sparse is before


# Around the fit --------------------------------------------------------------------------------


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
