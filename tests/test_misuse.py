"""Misuse of the evaluators and of fit is answered in words, and never by a wrong number."""

import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import drawn, rotated
from pyro.infer import JitTrace_ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bayesvae import Pair, check_pair, compare, data, families, fit, guides, log_evidence
from bayesvae.core.distributions import pyro_ready
from bayesvae.core.trace import log_terms
from bayesvae.evidence import elbo_per_datum
from bayesvae.objectives import elbo
from bayesvae.pairs import ppca

quiet = {"progress": False}


@pytest.fixture
def x():
    return drawn(rotated(), 12)


def own_rows(size):
    pair = ppca(rotated(), guides.PerDatapoint(size, families.Normal(2)))
    with torch.no_grad():
        pair.guide_part_1.rows.normal_()
    return pair


# Rows of single data ------------------------------------------------------------------------


@pytest.mark.parametrize("evaluate", [log_evidence, elbo_per_datum, partial(compare, **quiet)])
def test_a_part_without_its_positions_is_not_evaluated_on_the_rows_of_other_data(x, evaluate):
    with pytest.raises(ValueError, match="row for each of 12 data; got 4 data without"):
        evaluate(own_rows(12), x[4:8])


def test_a_part_with_its_positions_is_evaluated_on_its_own_rows(x):
    pair, at = own_rows(12), torch.arange(4, 8)
    whole = elbo_per_datum(pair, x, particles=4000)
    part = elbo_per_datum(pair, (x[4:8], at), particles=4000)
    noise = (whole.stderr[at] ** 2 + part.stderr**2).sqrt()
    assert ((whole.value[at] - part.value).abs() < 5 * noise).all()


# Plates -------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Normal data around a shared mean, in a plate that states its size or draws a subsample."""

    def __init__(self, **plate):
        super().__init__()
        self.plate, self.loc = plate, nn.Parameter(torch.zeros(()))

    def model(self, x, index=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", **self.plate) as at:
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[at] if len(at) < len(x) else x)

    def guide(self, x, index=None):
        pyro.sample("mean", dist.Normal(self.loc, 0.5))
        with pyro.plate("data", **self.plate) as at:
            pyro.sample("z", dist.Normal((x[at] if len(at) < len(x) else x) / 2, 0.7))


def test_a_plate_that_draws_its_own_subsample_is_not_evaluated_datum_by_datum():
    pair = Pair((programs := Counted(size=12, subsample_size=5)).model, programs.guide)
    with pytest.raises(ValueError, match="holds 5, as when a plate draws a subsample"):
        log_evidence(pair, torch.randn(12))


def test_a_stated_size_means_the_same_per_datum_to_pyros_objective_and_to_ours():
    values = []
    for objective in (Trace_ELBO(), elbo):
        programs = Counted(size=1000, subsample=torch.arange(30))
        torch.manual_seed(0)
        pair, loader = Pair(programs.model, programs.guide), data.Loader(torch.ones(30), 30)
        values.append(fit(pair, loader, objective, epochs=1, **quiet).epochs[0].objective)
    assert values[0] == pytest.approx(values[1], rel=1e-10)


# Latents ------------------------------------------------------------------------------------


def scalar(x):
    """A textbook pair: one scalar latent a datum, no ``to_event``; posterior N(x / 2, 1 / 2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + 0.5, 0.5**0.5))

    return Pair(model, guide)


def test_a_scalar_latent_has_gaps_too():
    x = torch.randn(10)
    split = compare(scalar(x), x, particles=500, **quiet).splits["train"]
    truth = dist.Normal(0.0, 2.0**0.5).log_prob(x)
    assert split.own == "Normal"
    assert (split.log_evidence.value - truth).abs().max() < 0.05
    # KL(N(m + 1/2, 1/2) || N(m, 1/2)) = (1/2)^2 / (2 * 1/2)
    assert split.amortization_gap.mean().item() == pytest.approx(0.25, abs=0.1)
    assert split.approximation_gap.mean().item() == pytest.approx(0.0, abs=0.02)


def test_a_guide_of_plain_torch_distributions_has_a_family_like_one_of_pyros(x):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Linear(5, 4)

        def posterior(self, x, index=None):
            loc, raw = self.network(x).chunk(2, -1)
            normal = torch.distributions.Normal(loc, raw.exp())
            return torch.distributions.Independent(normal, 1)

    guide = guides.Amortized(nn.Identity(), families.Normal(2))
    guide.posterior = Plain().posterior
    split = compare(ppca(rotated(), guide), x, particles=20, **quiet).splits["train"]
    assert split.own == "Normal"
    assert (split.amortization_gap > 0).all()


def test_values_outside_a_plain_torch_likelihood_are_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", pyro_ready(torch.distributions.Poisson(z.exp())), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match=r"support of Poisson.*whole numbers"):
        check_pair(Pair(model, guide), torch.full((4,), 0.5))


def test_a_latent_under_a_further_plate_is_compared_like_any_other():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("views", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("views", 2, dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    split = compare(Pair(model, guide), torch.randn(6, 2), **quiet).splits["train"]
    assert (split.inference_gap > 0).all()
    # One view's posterior is correlated, the other's is a copy of it: z.sum() is all that is seen.
    assert split.shortfall("MultivariateNormal").mean() < 0.02
    assert split.shortfall("Normal").mean() > 0.5


def test_an_automatic_guide_makes_a_pair_and_trains():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean, self.scale.exp()), obs=x)

    x = 3 + torch.randn(64)
    model = Model()
    pair = Pair(model, AutoNormal(model))
    adam = partial(torch.optim.Adam, lr=0.05)
    fit(pair, x, epochs=300, batch_size=64, optimizer=adam, **quiet)
    assert pair.guide_part_1.median()["mean"].item() == pytest.approx(x.mean().item(), abs=0.3)


class Judged(nn.Module):
    """Data around a shared mean whose guide is a point, or reads the data; local latents exact."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.at = kind, nn.Parameter(torch.tensor(0.4))

    def model(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        mean = self.at
        if self.kind == "point":
            pyro.sample("mean", dist.Delta(mean))
        else:
            mean = mean + x.mean() if self.kind == "reads x" else mean
            pyro.sample("mean", dist.Normal(mean, 1e-3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + self.at) / 2, 0.5**0.5))


def test_a_shared_latent_at_a_point_is_conditioned_on_that_point():
    x, programs = torch.randn(8), Judged("point")
    estimate = log_evidence(Pair(programs.model, programs.guide), x, particles=5)
    truth = dist.Normal(0.4, 2.0**0.5).log_prob(x)
    torch.testing.assert_close(estimate.value, truth, rtol=0, atol=1e-10)
    assert "['mean'] at the mean" in estimate.given


@pytest.mark.parametrize("kind", ["free", "reads x"])
def test_it_is_said_when_a_shared_latent_was_read_off_some_of_the_data(kind):
    programs = Judged(kind)
    estimate = log_evidence(Pair(programs.model, programs.guide), torch.randn(40), particles=2)
    assert ("reads the data, for the first 16" in estimate.given) == (kind == "reads x")


# Modes and copies ---------------------------------------------------------------------------


def test_looking_at_a_pair_before_training_leaves_running_statistics_to_the_steps(x):
    encoder = nn.Sequential(nn.Linear(5, 4), norm := nn.BatchNorm1d(4))
    pair = ppca(rotated(), guides.Amortized(encoder, families.Normal(2)))
    fit(pair, x, steps=3, validation=x[:6], **quiet)
    assert norm.num_batches_tracked == 3


def test_a_copy_has_programs_and_parameters_of_its_own_or_is_refused(x):
    pair = encoded()
    twin = copy.deepcopy(pair)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    values = [log_evidence(each, x, particles=3).value for each in (pair, twin)]
    assert not torch.allclose(*values, atol=1e-3)
    network = nn.Linear(2, 5)
    with pytest.raises(TypeError, match="model is a plain function around modules"):
        copy.deepcopy(Pair(lambda x: network(x), lambda x: None))


# Words --------------------------------------------------------------------------------------


def encoded():
    family = families.Normal(2)
    return ppca(rotated(), guides.Amortized(nn.Linear(5, family.size), family))


def late_nan(x):
    broken = x.repeat(4, 1)
    broken[29, 0] = torch.nan
    return torch.utils.data.StackDataset(broken)


MISUSES = {
    "no pair, fit": (lambda x: fit(rotated(), x), TypeError, "A Pair is needed; got PPCA"),
    "no pair, evidence": (lambda x: log_evidence(rotated(), x), TypeError, "A Pair is needed"),
    "no pair, compare": (lambda x: compare((1, 2), x), TypeError, "got tuple"),
    "no pair, check": (lambda x: check_pair(rotated().forward, x), TypeError, "got method"),
    "class for an objective": (lambda x: fit(ppca(rotated()), x, Trace_ELBO), TypeError, "got T"),
    "no particles": (
        lambda x: compare(ppca(rotated()), x, particles=0),
        ValueError,
        "particles >=",
    ),
    "no evidence particles": (
        lambda x: compare(ppca(rotated()), x, evidence_particles=0),
        ValueError,
        "evidence_particles",
    ),
    "a family": (
        lambda x: compare(ppca(rotated()), x, families=families.Normal),
        TypeError,
        "a sequence of",
    ),
    "families made": (
        lambda x: compare(ppca(rotated()), x, families=[families.Normal(3)]),
        TypeError,
        "makers",
    ),
    "one family twice": (
        lambda x: compare(
            ppca(rotated()), x, families=[families.Normal, partial(families.Normal)]
        ),
        ValueError,
        "a class of its own",
    ),
    "Pyro's optimiser": (
        lambda x: fit(ppca(rotated()), x, optimizer=pyro.optim.Adam({})),
        TypeError,
        "torch.optim",
    ),
    "LBFGS": (lambda x: fit(ppca(rotated()), x, optimizer=torch.optim.LBFGS), TypeError, "LBFGS"),
    "negative clip": (lambda x: fit(ppca(rotated()), x, clip_norm=-1.0), ValueError, "positive"),
    "negative KL": (lambda x: fit(ppca(rotated()), x, kl_weight=-1.0), ValueError, "at least 0"),
    "half an epoch": (lambda x: fit(ppca(rotated()), x, epochs=1.5), ValueError, "at least one"),
    "single precision": (
        lambda x: log_evidence(encoded(), x.float()),
        ValueError,
        "torch.float32 under .*float64",
    ),
    "NaN later on": (
        lambda x: log_evidence(ppca(rotated()), late_nan(x), 10, memory=1),
        ValueError,
        "position 29",
    ),
    "labels for positions": (
        lambda x: fit(own_rows(12), (x, torch.zeros(12, dtype=torch.long))),
        ValueError,
        "labels",
    ),
    "a compiled objective": (
        lambda x: fit(ppca(rotated()), x, JitTrace_ELBO()),
        TypeError,
        "Use Trace_ELBO",
    ),
    "a schedule with a metric": (
        lambda x: fit(ppca(rotated()), x, scheduler=ReduceLROnPlateau),
        TypeError,
        "another sched",
    ),
    "an objective a datum": (
        lambda x: fit(ppca(rotated()), x, lambda m, g, *b: log_terms(m, g, *b).local.elbo[0]),
        ValueError,
        "one number; got shape",
    ),
    "positions": (lambda x: log_evidence(ppca(rotated()), (x, x)), ValueError, "one whole-number"),
    "other unseen data": (
        lambda x: compare(ppca(rotated()), x, x[:, :2], **quiet),
        ValueError,
        "cannot be run",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_answered_in_words(misuse, x):
    call, error, words = MISUSES[misuse]
    with pytest.raises(error, match=words):
        call(x)


def test_a_batch_may_be_a_list_as_loaders_yield_it(x):
    assert "data[12]" in check_pair(ppca(rotated()), [x, torch.arange(12)])
