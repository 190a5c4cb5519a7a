"""Gaps that are known in closed form come out of the comparison, and each under its own name."""

import pyro.distributions as dist
import pytest
import torch
from comparing import SHIFT, SHORT, quiet, shifted_comparison
from linear_gaussian import (
    diagonal_optimum,
    drawn,
    guided,
    kl_to_posterior,
    orthogonal,
    rotated,
    shifted,
)

from bayesvae import families, guides
from bayesvae.core.estimates import mean_and_error
from bayesvae.optima import Ascent
from bayesvae.pairs import ppca


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
