"""Rows make members of a family, exactly, and members make rows."""

import pyro.distributions as dist
import pytest
import torch
from family_members import EXACT, FAMILIES, MEMBERS, diagonal, full, low_rank
from torch.testing import assert_close

from bayesvae import families
from bayesvae.core import distributions

LEADING = [(), (4,), (2, 3)]


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_give_a_member_back_with_scales_from_tiny_to_huge(name, leading):
    scale = torch.tensor([1e-4, 0.3, 50.0]).expand(*leading, 3)
    family, q = FAMILIES[name](3), MEMBERS[name](scale)
    rows = family.rows(q)
    assert rows.shape == (*leading, family.size)
    u = q.sample((20,))
    assert_close(family(rows).log_prob(u), q.log_prob(u), rtol=1e-8, atol=1e-8)
    assert_close(family(rows).mean, q.mean, **EXACT)
    assert_close(family(rows).stddev / scale, q.stddev / scale, **EXACT)


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("name", FAMILIES)
def test_distributions_give_their_rows_back(name, leading):
    family = FAMILIES[name](3)
    rows = torch.randn(*leading, family.size)
    assert family(rows).batch_shape == leading
    assert family(rows).event_shape == (3,)
    assert_close(family.rows(family(rows)), rows, **EXACT)


def test_full_covariance_takes_other_normals_over_exactly():
    scale = torch.rand(4, 3) + 0.1
    taken = families.MultivariateNormal(3)
    for q, expected in ((diagonal(scale), scale.square().diag_embed()), (low_rank(scale), None)):
        expected = q.covariance_matrix if expected is None else expected
        assert_close(taken(taken.rows(q)).covariance_matrix, expected, **EXACT)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_another_distribution_match_its_mean_and_variances(name):
    family = FAMILIES[name](2)
    for q in (full(torch.tensor([0.5, 2.0])), dist.Gamma(torch.tensor([2.0, 3.0]), 4.0)):
        q = q if q.event_shape else q.to_event(1)
        taken = family(family.rows(q))
        assert_close(taken.mean, q.mean, **EXACT)
        assert_close(taken.variance, q.variance, **EXACT)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_cholesky_factor_is_scales_times_unit_triangle_filled_by_rows(dim):
    family = families.MultivariateNormal(dim)
    rows = torch.randn(3, family.size)
    for row, tril in zip(rows, family(rows).scale_tril, strict=True):
        scale, below = families.positive(row[dim : 2 * dim]), iter(row[2 * dim :])
        for i in range(dim):
            entries = [scale[i] * next(below) for _ in range(i)] + [scale[i]]
            assert_close(tril[i, : i + 1], torch.stack(entries), **EXACT)
            assert not tril[i, i + 1 :].any()
        assert next(below, None) is None
    assert (torch.linalg.eigvalsh(family(rows).covariance_matrix) > 0).all()


SIZES = {
    "Normal": (2, 4, 6),
    "MultivariateNormal": (2, 5, 9),
    "LowRankNormal": (6, 12, 18),
    "NormalMixture": (48, 80, 112),
    # Normal, spline, then 16 hidden units: (kept + 1) 16 + 17 outputs, two couplings of each half.
    "Flow": (2 + 11, 5 + 22 + 4 * 66, 9 + 33 + 2 * (32 + 17 * 4) + 2 * (48 + 17 * 2)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_size_counts_the_numbers_of_a_row(name):
    assert tuple(FAMILIES[name](dim).size for dim in (1, 2, 3)) == SIZES[name]


def test_families_contain_their_own_kind_and_no_other_dim():
    loc, one = torch.zeros(5, 2), torch.ones(5, 2)
    plain = torch.distributions.Independent(torch.distributions.Normal(loc, one), 1)
    normal, full_covariance = families.Normal(2), families.MultivariateNormal(2)
    assert normal.contains(plain)
    assert normal.contains(dist.Normal(loc, one).to_event(1))
    assert not normal.contains(dist.Normal(loc, one))
    assert not normal.contains(dist.Normal(loc, one).to_event(2))
    assert not normal.contains(dist.LogNormal(loc, one).to_event(1))
    assert not normal.contains(dist.StudentT(5.0, loc, one).to_event(1))
    assert not families.Normal(3).contains(plain)
    assert full_covariance.contains(full(one))
    assert not full_covariance.contains(plain)
    assert not normal.contains(full(one))
    assert not families.MultivariateNormal(3).contains(full(one))
    low = families.LowRankNormal(2)
    assert low.contains(low_rank(one))
    assert not full_covariance.contains(low_rank(one))
    assert not low.contains(full(one))
    assert not families.LowRankNormal(2, rank=3).contains(low_rank(one))
    assert not families.LowRankNormal(3).contains(low_rank(one))


@pytest.mark.parametrize(
    ("family", "others"),
    [
        (families.NormalMixture(2), [families.NormalMixture(3), families.NormalMixture(2, 4)]),
        (families.Flow(2), [families.Flow(3), families.Flow(2, bins=3), families.Normal(2)]),
    ],
)
def test_a_family_contains_what_its_own_rows_make_and_not_what_others_make(family, others):
    q = family(torch.randn(5, family.size))
    assert family.contains(q)
    assert family.contains(distributions.pyro_ready(q))
    assert not any(other.contains(q) for other in others)
    assert not family.contains(diagonal(torch.ones(5, 2)))


@pytest.mark.parametrize("name", FAMILIES)
def test_no_entry_of_a_row_is_without_gradient(name):
    family = FAMILIES[name](3)
    rows = torch.randn(2, family.size, requires_grad=True)
    points, weights = 2 * torch.randn(300, 1, 3), torch.randn(3)
    (density,) = torch.autograd.grad(family(rows).log_prob(points).sum(), rows)
    cubes = family(rows).rsample((300,)) ** 3 @ weights
    (path,) = torch.autograd.grad(cubes.sum(), rows)
    assert (density != 0).all()
    assert (path != 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_keep_their_dtype_and_not_the_default_one(name):
    family = FAMILIES[name](3)
    q = family(torch.randn(2, family.size, dtype=torch.float32))
    assert q.rsample().dtype == torch.float32
    assert q.log_prob(q.sample()).dtype == torch.float32
    assert family.rows(q).dtype == torch.float32


def test_scales_invert_and_stay_above_their_floor():
    scale = torch.logspace(-5, 3, 50)
    assert_close(families.positive(families.raw_of(scale)), scale, rtol=1e-10, atol=0)
    assert (families.positive(torch.tensor([-1e4, -40.0])) >= families.SCALE_FLOOR).all()
    assert torch.isfinite(families.raw_of(torch.tensor([0.0, families.SCALE_FLOOR]))).all()


def test_pyro_ready_wraps_plain_torch_and_leaves_pyro_alone():
    plain = torch.distributions.Normal(torch.zeros(3), 1.0)
    ready = distributions.pyro_ready(plain)
    assert_close(ready.log_prob(torch.ones(3)), plain.log_prob(torch.ones(3)))
    assert hasattr(ready, "mask")
    pyros = dist.Normal(0.0, 1.0)
    assert distributions.pyro_ready(pyros) is pyros
