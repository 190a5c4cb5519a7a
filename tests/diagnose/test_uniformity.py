"""Chances of ranks are what enumeration and repetition say they are."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from bayesvae.diagnose.uniformity import Uniform, holm, scores, symmetry_p_values, two_sided

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def uniform_ranks(n, draws, sets):
    return torch.randint(0, draws + 1, (n, sets))


def smallest_tail(counts, shares, n):
    """The least two-sided binomial tail of counts ``(K,)``, by torch's own masses."""
    tails = []
    for count, share in zip(counts.tolist(), shares.tolist(), strict=True):
        mass = torch.distributions.Binomial(n, torch.tensor(share)).log_prob(torch.arange(n + 1.0))
        below, above = mass.exp()[: count + 1].sum(), mass.exp()[count:].sum()
        tails.append(min(1.0, 2 * min(below, above).item()))
    return min(tails)


def test_differences_count_the_ranks_below_each_place():
    uniform, ranks = Uniform(30, 19), uniform_ranks(30, 19, 2)
    for i, share in enumerate(uniform.shares):
        below = (ranks.double() / 20 < share - 1e-9).double().mean(0)
        assert_close(uniform.differences(ranks)[i], below - share, **EXACT)


def test_p_values_are_those_of_all_sets_of_ranks_enumerated():
    n, draws = 4, 3
    ranks = torch.tensor(list(itertools.product(range(draws + 1), repeat=n))).T
    uniform = Uniform(n, draws)
    counts = ((uniform.differences(ranks) + uniform.shares[:, None]) * n).round().long()
    tails = torch.tensor([smallest_tail(each, uniform.shares, n) for each in counts.T])
    exact = (tails <= tails[:, None] + 1e-9).double().mean(1)
    assert_close(uniform.p_values(ranks), exact, rtol=0.0, atol=1e-9)
    assert exact.unique().numel() > 5


@pytest.mark.parametrize(("n", "draws"), [(60, 199), (200, 99), (500, 37)])
def test_a_band_holds_all_of_a_function_as_often_as_it_says(n, draws):
    uniform, sets = Uniform(n, draws), 3000
    differences = uniform.differences(uniform_ranks(n, draws, sets))
    low, high = (end[:, None] for end in uniform.band(0.9))
    outside = ((differences < low - 1e-9) | (differences > high + 1e-9)).any(0).double().mean()
    error = (0.1 * 0.9 / sets) ** 0.5
    assert 0.1 - 4 * error - 0.01 < outside < 0.1 + 4 * error


def test_a_function_leaves_the_band_exactly_where_its_p_value_says_so():
    uniform, ranks = Uniform(100, 99), uniform_ranks(100, 99, 300)
    ranks[:, :50] = ranks[:, :50] * 3 // 4
    low, high = (end[:, None] for end in uniform.band(0.95))
    differences = uniform.differences(ranks)
    outside = ((differences < low - 1e-9) | (differences > high + 1e-9)).any(0)
    assert torch.equal(outside, uniform.p_values(ranks) <= 0.05)
    assert outside[:50].all()


P_VALUES = {
    "uniform": lambda ranks, draws: Uniform(len(ranks), draws).p_values(ranks),
    "symmetric": symmetry_p_values,
    "location": lambda ranks, draws: two_sided(scores(ranks, draws).location_z),
    "scatter": lambda ranks, draws: two_sided(scores(ranks, draws).scatter_z),
}


@pytest.mark.parametrize("name", P_VALUES)
def test_p_values_of_uniform_ranks_are_as_small_as_chance_makes_them(name):
    sets = 1500
    p = P_VALUES[name](uniform_ranks(150, 999, sets), 999)
    for level in (0.01, 0.05, 0.3):
        error = (level * (1 - level) / sets) ** 0.5
        # Counts are whole numbers, so that some p-values cannot be met.
        assert level * 0.7 - 4 * error < (p <= level).double().mean() < level + 4 * error


@pytest.mark.parametrize("name", P_VALUES)
def test_p_values_are_the_same_of_ranks_turned_around(name):
    ranks = uniform_ranks(80, 99, 20)
    turned = P_VALUES[name](99 - ranks, 99)
    assert_close(P_VALUES[name](ranks, 99), turned, rtol=1e-6, atol=1e-9)


def test_one_of_two_ends_is_an_asymmetry_and_both_are_none():
    n, draws = 200, 99
    ends = torch.where(torch.arange(n) % 2 == 0, 3, 96)
    one = torch.where(torch.arange(n) % 4 == 0, 3, 96)
    p = symmetry_p_values(torch.stack([ends, one], -1), draws)
    assert p[0] == 1
    assert p[1] < 1e-6


def test_chances_of_a_walk_are_those_of_all_walks_enumerated():
    n, draws = 8, 99
    signs = torch.tensor(list(itertools.product([-1, 1], repeat=n)))
    ranks = torch.where(signs > 0, 99 - torch.arange(n), torch.arange(n))
    reach = signs.cumsum(-1).abs().amax(-1)
    exact = (reach >= reach[:, None]).double().mean(1)
    assert_close(symmetry_p_values(ranks.T, draws), exact, **EXACT)


def test_ranks_in_the_very_middle_say_nothing_of_symmetry():
    ranks = torch.cat([torch.full((50, 1), 50), torch.zeros(6, 1, dtype=torch.long)])
    assert symmetry_p_values(ranks[:50], 100).item() == 1
    assert symmetry_p_values(ranks, 100).item() == pytest.approx(2 * 0.5**6)


@pytest.mark.parametrize(("shift", "scatter"), [(0.0, 1.0), (0.4, 1.0), (-0.3, 0.6), (0.2, 1.5)])
def test_scores_tell_location_and_scatter_apart(shift, scatter):
    n, draws = 4000, 999
    truth = shift + scatter * torch.randn(n, 1)
    ranks = (torch.randn(n, draws) < truth).sum(-1, keepdim=True)
    found = scores(ranks, draws)
    error = scatter / n**0.5
    assert (found.location.item() - shift) / error == pytest.approx(0, abs=5)
    assert found.location_z.item() == pytest.approx(shift / error, abs=5)
    assert found.scatter.item() == pytest.approx(scatter, rel=5 / (2 * n) ** 0.5 + 0.02)
    assert (found.scatter_z.item() > 4) == (scatter > 1)
    assert (found.scatter_z.item() < -4) == (scatter < 1)


def test_wrong_scatter_is_no_evidence_of_a_shift():
    """Judged by the scatter of uniform ranks, a guide too narrow would seem shifted."""
    wide = torch.distributions.Normal(0.0, 1.0).cdf(2.5 * torch.randn(150, 2000))
    z = scores((wide * 1000).long().clamp_max(999), 999).location_z
    assert z.std().item() == pytest.approx(1, abs=4 / 4000**0.5)


def test_holm_raises_each_by_how_many_are_left_and_keeps_the_order():
    p = torch.tensor([[0.03, 0.001], [0.5, 0.02]])
    expected = torch.tensor([[0.06, 0.004], [0.5, 0.06]])
    assert_close(holm(p), expected, **EXACT)
    assert holm(torch.tensor([0.9, 0.8])).max() == 1
