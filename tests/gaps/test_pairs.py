"""Pairs of every kind are compared, and where the truth is known it comes out."""

from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparing import SHIFT, SHORT, Tutorial, quiet
from linear_gaussian import (
    SharedMean,
    assert_same,
    contents,
    diagonal_optimum,
    drawn,
    guided,
    rotated,
)
from pyro import poutine
from torch import nn

from bayesvae import Pair, families, guides, likelihoods, networks, priors
from bayesvae.core.estimates import mean_and_error
from bayesvae.pairs import hierarchical


def test_latents_given_from_outside_are_fixed_for_every_bound_and_the_table_says_so():
    shared = AffineShared(0.7)
    x = torch.randn(12)
    result = quiet(Pair(shared.model, shared.guide), x)
    split = result.splits["train"]
    truth = shared.log_evidence(x, 0.7)
    for bound in (split.guide, split.log_evidence, *split.bounds.values()):
        assert (bound.value - truth).mean().abs() < 5e-3
        assert bound.given == result.given
    words = "given shared latents ['mean'] at the mean of their guide"
    assert result.given == words
    assert str(result).startswith(f"All of it {words}.")


class AffineShared(SharedMean):
    """The latent of a datum as a vector of length one."""

    def model(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, self.a).expand((1,)).to_event(1))
            pyro.sample("x", dist.Normal(z.squeeze(-1), self.b), obs=x)

    def guide(self, x):
        mean = pyro.sample("mean", dist.Normal(self.mean, 0.3))
        precision = self.a**-2 + self.b**-2
        with pyro.plate("data", len(x)):
            loc = (mean / self.a**2 + x / self.b**2) / precision
            pyro.sample("z", dist.Normal(loc.unsqueeze(-1), precision**-0.5).to_event(1))


def masking(seen, both):
    """A PPCA of whose data only some count: the observations alone, or the latents with them."""
    model = rotated()

    def program(x):
        keep = seen[: len(x)]
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=keep if both else torch.ones_like(keep)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.mask(mask=keep):
                mean = z @ model.weight.T + model.loc
                pyro.sample("x", dist.Normal(mean, model.scale).to_event(1), obs=x)

    def guide(x):
        keep = seen[: len(x)]
        best, row = diagonal_optimum(model, x), keep.unsqueeze(-1)
        with pyro.plate("data", len(x)), poutine.mask(mask=keep if both else True):
            unseen = 0.5 if both else 1.0
            loc, scale = torch.where(row, best.mean, 0.0), torch.where(row, best.stddev, unseen)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, Pair(program, guide)


@pytest.mark.parametrize("both", [False, True], ids=["observations", "latents too"])
def test_data_behind_a_mask_have_evidence_one_and_no_gaps(both):
    seen = torch.arange(16) % 2 == 0
    model, pair = masking(seen, both)
    x = drawn(model, 16)
    split = quiet(pair, x, particles=1500).splits["train"]
    truth = torch.where(seen, model.log_evidence(x), 0.0).detach()
    assert (split.log_evidence.value - truth).abs().max() < 0.05
    assert split.guide.value[~seen].abs().max() < 1e-10
    for bound in split.bounds.values():
        assert bound.value[~seen].abs().max() < 0.02
        assert mean_and_error(truth - bound.value)[0] > -0.01


def layers():
    """Two layers of latents over four features."""
    mlp = partial(networks.MLP, hidden=(5,), activation=nn.Tanh)
    posteriors = [
        guides.Amortized(mlp(4, outputs=6), families.Normal(3)),
        guides.Amortized(mlp(3, outputs=4), families.Normal(2)),
    ]
    between = likelihoods.Normal(mlp(2, outputs=3), scale=mlp(2, outputs=3))
    likelihood = likelihoods.Normal(mlp(3, outputs=4))
    return hierarchical(priors.StandardNormal(2), [between], likelihood, posteriors)


def test_families_are_fitted_to_the_several_latents_of_a_guide_that_is_none_of_them():
    result = quiet(layers(), torch.randn(20, 4))
    split = result.splits["train"]
    assert split.own is None
    assert (split.amortization_gap, split.approximation_gap) == (None, None)
    ladder = split.guide, split.bounds["Normal"], split.bounds["MultivariateNormal"]
    values = [*(bound.value for bound in ladder), split.log_evidence.value]
    for below, above in pairwise(values):
        assert (above - below).mean() > -0.01
    assert (values[1] - values[0]).mean() > 0.05
    table = str(result)
    assert "improvement over the guide" in table
    assert "amortization" not in table


def apart(model):
    """A PPCA whose two latents are sites of their own, the second known by its logarithm."""

    def program(x):
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(0.0, 1.0))
            second = pyro.sample("second", dist.LogNormal(0.0, 1.0))
            mean = torch.stack([first, second.log()], -1) @ model.weight.T + model.loc
            pyro.sample("x", dist.Normal(mean, model.scale).to_event(1), obs=x)

    def guide(x):
        q = diagonal_optimum(model, x, SHIFT).base_dist
        with pyro.plate("data", len(x)):
            pyro.sample("first", dist.Normal(q.loc[:, 0], q.scale[:, 0]))
            pyro.sample("second", dist.LogNormal(q.loc[:, 1], q.scale[:, 1]))

    return Pair(program, guide)


def test_latents_of_any_support_have_the_gaps_of_the_real_vector_that_they_are():
    model = rotated()
    x = drawn(model, 30)
    draws = {"particles": 1500, "evidence_particles": 4000}
    split = quiet(apart(model), x, **draws).splits["train"]
    truth = model.log_evidence(x).detach()
    assert (split.log_evidence.value - truth).mean().abs() < 0.01
    assert (truth - split.bounds["MultivariateNormal"].value).mean().abs() < 0.01
    missed = model.diagonal_gap().item()
    assert split.shortfall("Normal").mean().item() == pytest.approx(missed, abs=0.015)
    cost = (SHIFT @ model.precision @ SHIFT / 2).item()
    assert split.improvement("Normal").mean().item() == pytest.approx(cost, abs=0.03)


def test_discrete_latents_get_the_guides_bound_alone_and_a_reason():
    def program(x):
        with pyro.plate("data", len(x)):
            which = pyro.sample("which", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(which, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("which", dist.Bernoulli(0.4))

    x = torch.randn(20)
    result = quiet(Pair(program, guide), x)
    split = result.splits["train"]
    assert (split.bounds, split.own) == ({}, None)
    assert "No families were fitted" in str(result)
    assert "'which' is Bernoulli" in str(result)
    log_prob = dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(x[:, None])
    truth = (log_prob + torch.tensor([0.7, 0.3]).log()).logsumexp(-1)
    assert ((split.log_evidence.value - truth) / split.log_evidence.stderr).abs().max() < 4.5


def test_a_mask_on_some_latents_of_a_datum_is_refused():
    model = rotated()
    pair = Pair(lambda x: half(x, True), lambda x: half(x, False))
    with pytest.raises(ValueError, match="count together or not at all"):
        quiet(pair, drawn(model, 6))


def half(x, observe):
    """Two latents a datum, a mask on the first."""
    with pyro.plate("data", len(x)):
        with poutine.mask(mask=x[:, 0] > 0):
            first = pyro.sample("first", dist.Normal(0.0, 1.0))
        second = pyro.sample("second", dist.Normal(first, 1.0))
        if observe:
            pyro.sample("x", dist.Normal(second, 1.0), obs=x[:, 0])


def test_a_pair_from_the_tutorial_is_compared_unchanged():
    tutorial = Tutorial()
    model = rotated(scale=0.7)
    with torch.no_grad():
        tutorial.decoder.weight.copy_(model.weight)
        tutorial.decoder.bias.copy_(model.loc)
    x = drawn(model, 20)
    draws = {"particles": 1500, "evidence_particles": 4000}
    split = quiet(Pair(tutorial.model, tutorial.guide), x, **draws).splits["train"]
    assert split.own == "Normal"
    missed = model.log_evidence(x) - split.bounds["MultivariateNormal"].value
    assert missed.mean().abs() < 1e-2
    assert split.approximation_gap.mean().item() == pytest.approx(
        model.diagonal_gap().item(), abs=0.03
    )
    assert split.amortization_gap.mean() > 1


class Spherical:
    """A user's own family: one standard deviation for all latents."""

    def __init__(self, dim):
        self.size = dim + 1

    def __call__(self, rows):
        scale = families.positive(rows[..., -1:]).expand(rows[..., :-1].shape)
        return dist.Normal(rows[..., :-1], scale).to_event(1)

    def rows(self, distribution):
        raw = families.raw_of(distribution.stddev.mean(-1, keepdim=True))
        return torch.cat([distribution.mean, raw], -1)

    def contains(self, distribution):
        scale = distribution.stddev
        return bool(torch.allclose(scale, scale[..., :1]))


def test_a_users_own_family_is_one_of_the_bounds_and_misses_what_it_has_to():
    model = rotated()
    x, precision = drawn(model, 20), model.precision.detach()
    scale = precision.diagonal().mean().rsqrt()
    missed = -2 * scale.log() - torch.logdet(precision) / 2
    assert missed > model.diagonal_gap() + 0.02
    # The guide is the best spherical normal, shifted.
    pair = guided(model, lambda x: dist.Normal(model.posterior(x).mean + SHIFT, scale).to_event(1))
    makers = (Spherical, families.MultivariateNormal)
    split = quiet(pair, x, families=makers, particles=3000).splits["train"]
    assert list(split.bounds) == ["Spherical", "MultivariateNormal"]
    assert split.own == "Spherical"
    assert split.approximation_gap.mean().item() == pytest.approx(missed.item(), abs=0.01)
    cost = (SHIFT @ precision @ SHIFT / 2).item()
    assert split.amortization_gap.mean().item() == pytest.approx(cost, abs=0.02)


def test_any_pair_is_compared_and_left_bit_for_bit_as_it_was(case, tmp_path):
    pair = case.pair
    pair.find_parameters(case.x, case.index)
    next(pair.children()).eval()
    before = contents(pair)
    source = case.x if case.index is None else (case.x, case.index)
    result = quiet(pair, source, particles=3, evidence_particles=5, ascent=SHORT)
    assert_same(before, contents(pair))
    split = result.splits["train"]
    for bound in (split.guide, split.log_evidence, *split.bounds.values()):
        assert torch.isfinite(bound.value).all()
        assert bound.value.shape == bound.stderr.shape == (len(case.x),)
    assert bool(result.given) == case.shared
    result.to_csv(tmp_path / "gaps.csv")
    assert "log p(x)" in str(result)
