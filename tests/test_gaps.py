"""Gaps that are known in closed form come out of the comparison, and each under its own name."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparing import SHIFT, SHORT, quiet, shifted_comparison
from pyro import poutine
from rulers import (
    SharedMean,
    assert_same,
    contents,
    diagonal_optimum,
    drawn,
    guided,
    kl_to_posterior,
    orthogonal,
    rotated,
    shifted,
)
from torch import nn

from bayesvae import Pair, families, guides, likelihoods, networks, priors
from bayesvae.ascent import Ascent
from bayesvae.estimates import mean_and_error
from bayesvae.pairs import hierarchical, ppca


@pytest.fixture(params=["train", "unseen"])
def known(request):
    """The model, the data and the split of the comparison above, by split."""
    model, data, result = shifted_comparison()
    return model, data[request.param], result.splits[request.param]


def test_the_ruler_is_rotated_enough_to_tell_the_families_apart():
    model, _, _ = shifted_comparison()
    assert model.diagonal_gap() > 0.1


def test_full_covariance_optimum_reaches_log_p_of_x(known):
    model, x, split = known
    bound = split.bounds["MultivariateNormal"]
    assert (model.log_evidence(x) - bound.value).mean().abs() < 5e-3
    assert split.shortfall("MultivariateNormal").mean().abs() < 1e-2


def test_diagonal_optimum_misses_log_p_of_x_by_the_analytic_gap(known):
    model, x, split = known
    missed = (model.log_evidence(x) - split.bounds["Normal"].value).mean()
    assert (missed - model.diagonal_gap()).abs() < 1e-2
    assert (split.approximation_gap.mean() - model.diagonal_gap()).abs() < 1e-2


def test_amortization_gap_of_a_shifted_guide_is_what_the_shift_costs(known):
    model, _, split = known
    cost = (SHIFT @ model.precision @ SHIFT / 2).item()
    assert cost > 0.2
    assert split.own == "Normal"
    assert split.amortization_gap.mean().item() == pytest.approx(cost, abs=0.02)


def test_gaps_add_up_to_the_divergence_of_the_guide_from_the_posterior(known):
    model, x, split = known
    total = split.amortization_gap + split.approximation_gap
    torch.testing.assert_close(split.inference_gap, total, rtol=0, atol=1e-10)
    divergence = kl_to_posterior(model, diagonal_optimum(model, x, SHIFT), x)
    assert (split.inference_gap - divergence).mean().abs() < 0.02


@pytest.mark.parametrize("name", ["log_evidence", "guide"])
def test_errors_of_a_datum_are_as_large_as_stated_and_the_data_in_their_order(known, name):
    model, x, split = known
    truth = model.log_evidence(x)
    if name == "guide":
        truth = truth - kl_to_posterior(model, diagonal_optimum(model, x, SHIFT), x)
    estimate = getattr(split, name)
    z = (estimate.value - truth.detach()) / estimate.stderr
    assert z.abs().max() < 4.5
    assert z.mean().abs() < 4 / len(z) ** 0.5
    assert 0.5 < z.std() < 1.6


def test_bounds_are_in_order_of_their_families_and_below_log_p_of_x(known):
    model, x, split = known
    lower = ("guide", split.guide), ("Normal", split.bounds["Normal"])
    ladder = [*(bound.value for _, bound in lower), split.bounds["MultivariateNormal"].value]
    for below, above in zip(ladder, [*ladder[1:], model.log_evidence(x).detach()], strict=True):
        mean, error = mean_and_error(above - below)
        assert mean > -4 * error
    assert (ladder[1] - ladder[0]).mean() > 0.05
    assert (ladder[2] - ladder[1]).mean() > 0.05


def test_optima_have_stopped_moving(known):
    _, _, split = known
    assert split.movement.keys() == split.bounds.keys()
    assert all(abs(moved) < 0.01 for moved in split.movement.values())


def test_effective_sample_size_of_the_pooled_proposal_is_large(known):
    _, _, split = known
    assert split.log_evidence.effective_sample_size.min() > 1000


def test_a_guide_that_is_exact_has_no_gaps():
    model = rotated()
    split = quiet(ppca(model), drawn(model, 20), evidence_particles=4000).splits["train"]
    assert split.own == "MultivariateNormal"
    for gap in (split.amortization_gap, split.approximation_gap, split.inference_gap):
        assert gap.mean().abs() < 5e-3
    assert split.guide.stderr.max() < 1e-6


def test_the_search_starts_from_the_guide_with_its_correlations():
    model = rotated()
    x, still = drawn(model, 9), Ascent(rate=0.0, stages=1, window=1, windows=1)
    split = quiet(ppca(model), x, families=(families.MultivariateNormal,), ascent=still)
    bound = split.splits["train"].bounds["MultivariateNormal"]
    torch.testing.assert_close(bound.value, model.log_evidence(x).detach(), rtol=0, atol=1e-6)


def test_a_diagonal_guide_has_no_gaps_where_the_posterior_is_diagonal():
    model = orthogonal()
    split = quiet(shifted(model), drawn(model, 20)).splits["train"]
    assert split.own == "Normal"
    assert split.amortization_gap.mean().abs() < 5e-3
    assert split.approximation_gap.mean().abs() < 5e-3


def test_a_row_a_datum_at_its_optimum_has_no_amortization_gap_and_one_beside_it_has():
    model = rotated()
    x, family = drawn(model, 20), families.Normal(2)
    guide = guides.PerDatapoint(20, family)
    gaps = []
    for shift in (0.0, SHIFT):
        guide.rows.data = family.rows(diagonal_optimum(model, x, shift)).detach()
        split = quiet(ppca(model, guide), x, particles=1500).splits["train"]
        assert split.own == "Normal"
        gaps.append(split.amortization_gap.mean().item())
    cost = (SHIFT @ model.precision @ SHIFT / 2).item()
    assert gaps == pytest.approx([0.0, cost], abs=0.02)


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


def test_a_guide_over_several_latents_gets_log_p_of_x_its_bound_and_the_difference():
    result = quiet(layers(), torch.randn(20, 4))
    split = result.splits["train"]
    assert (split.bounds, split.own) == ({}, None)
    assert (split.amortization_gap, split.approximation_gap) == (None, None)
    assert split.inference_gap.mean() > 0
    table = str(result)
    assert all(words in table for words in ("log p(x)", "L[q_phi] guide", "log p(x) - L[q_phi]"))
    assert not any(words in table for words in ("amortization", "approximation", "L[q*]"))


class Tutorial(nn.Module):
    """Written as in Pyro's own tutorial: methods, no index, site names of its own."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zero, one = torch.zeros(x.shape[0], 2), torch.ones(x.shape[0], 2)
            code = pyro.sample("latent", dist.Normal(zero, one).to_event(1))
            pyro.sample("obs", dist.Normal(self.decoder(code), 0.7).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, raw.exp()).to_event(1))


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


def test_no_families_give_the_bounds_of_the_guide_alone():
    model = rotated()
    split = quiet(ppca(model), drawn(model, 9), families=()).splits["train"]
    torch.testing.assert_close(split.log_evidence.value, split.guide.value, rtol=0, atol=1e-10)
    assert split.bounds == {}


@pytest.mark.parametrize("unseen", [30, 10], ids=["more", "fewer"])
@pytest.mark.parametrize("frozen", [False, True])
def test_unseen_data_have_no_row_of_their_own_and_are_refused(unseen, frozen):
    # Their positions 0, 1, ... are those of other data: their rows would be wrong, not missing.
    model = rotated()
    pair = ppca(model, guides.PerDatapoint(20, families.Normal(2))).requires_grad_(not frozen)
    with pytest.raises(ValueError, match="row"):
        quiet(pair, drawn(model, 20), drawn(model, unseen, seed=2), ascent=SHORT)


def test_a_point_mass_is_refused():
    model = rotated()
    pair = guided(model, lambda x: dist.Delta(model.posterior(x).mean, event_dim=1))
    with pytest.raises(ValueError, match="guide of 'z' is a point mass"):
        quiet(pair, drawn(model, 4))


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


def test_one_seed_gives_one_comparison():
    model = rotated()
    tables = []
    for _ in range(2):
        torch.manual_seed(4)
        result = quiet(shifted(model), drawn(model, 6), ascent=SHORT)
        tables.append(result.splits["train"])
    assert torch.equal(tables[0].log_evidence.value, tables[1].log_evidence.value)
    assert torch.equal(tables[0].amortization_gap, tables[1].amortization_gap)


def test_batches_and_memory_cut_the_work_and_not_the_result():
    model = rotated()
    x = drawn(model, 23)
    small = quiet(ppca(model), x, batch_size=5, memory=60_000, ascent=SHORT)
    split = small.splits["train"]
    truth = model.log_evidence(x).detach()
    torch.testing.assert_close(split.guide.value, truth, rtol=0, atol=1e-10)
    assert ((split.log_evidence.value - truth) / split.log_evidence.stderr).abs().max() < 5
