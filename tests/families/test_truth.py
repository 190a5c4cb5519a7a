"""Densities, draws and gradients of every family against quadrature on a grid."""

import pytest
import torch
from family_members import EXACT, FAMILIES, grid, odd
from linear_gaussian import drawn, learnable, rotated, z_scores
from torch.testing import assert_close

from bayesvae import check_pair, families, guides
from bayesvae.compiler import Compiled, tracing
from bayesvae.core.distributions import pathwise_mean
from bayesvae.pairs import ppca

BOTH = [(name, dim) for name in FAMILIES for dim in (1, 2)]


def log_joint(u):
    """A density that no family holds."""
    return -(u.square().sum(-1)) / 2 + torch.sin(3 * u[..., 0]) * torch.cos(u[..., -1])


@pytest.mark.parametrize(("name", "dim"), BOTH)
def test_densities_integrate_to_one_and_have_the_moments_that_are_stated(name, dim):
    family, rows = odd(name, dim)
    q = family(rows)
    u, volume = grid(q)
    mass = q.log_prob(u).exp() * volume
    assert_close(mass.sum(), torch.tensor(1.0), rtol=0, atol=1e-3)
    mean = mass @ u
    # Those of a flow are taken over fixed points.
    near = {"rtol": 0, "atol": 0.1} if name == "Flow" else {"rtol": 0, "atol": 1e-3}
    assert_close((q.mean - mean) / q.stddev, torch.zeros(dim), **near)
    assert_close((mass @ (u - mean).square()).sqrt() / q.stddev, torch.ones(dim), **near)


@pytest.mark.parametrize(("name", "dim"), BOTH)
def test_draws_follow_the_density(name, dim):
    family, rows = odd(name, dim)
    q = family(rows)
    u, volume = grid(q)
    ways = torch.randn(dim, 6)

    def features(u):
        return torch.tanh((u - q.mean) / q.stddev @ ways + torch.linspace(-1, 1, 6))

    expected = (q.log_prob(u).exp() * volume) @ features(u)
    assert z_scores(features(q.sample((40_000,))), expected).abs().max() < 5
    if family.contains(q) and hasattr(q, "weighted_rsample"):
        draws, weights = q.weighted_rsample(40_000)
        assert_close(weights.sum(0), torch.tensor(1.0), **EXACT)
        strata = (features(draws) * weights.unsqueeze(-1)).unflatten(0, (family.components, -1))
        assert z_scores(len(strata[0]) * strata.sum(0), expected).abs().max() < 5


def by_draws(f, q, particles):
    return f(q.rsample((particles,))).mean(0)


ESTIMATORS = {
    **{f"{name} {dim}, draws": (name, dim, by_draws) for name, dim in BOTH},
    **{f"NormalMixture {dim}, strata": ("NormalMixture", dim, pathwise_mean) for dim in (1, 2)},
}


@pytest.mark.parametrize("case", ESTIMATORS)
def test_gradients_of_the_ascent_are_unbiased(case):
    """Catches a weight, a score or a slope that is left out: log q has its parameters fixed."""
    name, dim, mean = ESTIMATORS[case]
    family, row = odd(name, dim)
    exact = row.clone().requires_grad_()
    u, volume = grid(family(row))
    log_q = family(exact).log_prob(u)
    bound = (log_q.exp() * (log_joint(u) - log_q)).sum() * volume
    (expected,) = torch.autograd.grad(bound, exact)

    rows = row.expand(20_000 if dim == 1 else 8000, -1).clone().requires_grad_()
    fixed = family(rows.detach())
    bounds = mean(lambda u: log_joint(u) - fixed.log_prob(u), family(rows), 1)
    (gradients,) = torch.autograd.grad(bounds.sum(), rows)
    assert expected.abs().max() > 0.1
    error = gradients.std(0) / len(rows) ** 0.5 + 1e-6
    assert ((gradients.mean(0) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_knows_nothing_of_the_others(name):
    family = FAMILIES[name](3)
    rows, u = torch.randn(4, family.size), torch.randn(5, 4, 3)
    other = rows.index_fill(0, torch.tensor([1]), 0.3)
    outcomes = []
    for each in (rows, other):
        torch.manual_seed(3)
        q = family(each)
        outcomes.append((q.log_prob(u), q.rsample((5,)), q.mean.expand(5, 4, 3)))
    for before, after in zip(*outcomes, strict=True):
        assert not torch.equal(before[:, 1], after[:, 1])
        assert torch.equal(before[:, [0, 2, 3]], after[:, [0, 2, 3]])


@pytest.mark.parametrize("name", FAMILIES)
def test_leading_dims_of_rows_draws_and_plates_agree(name):
    family = FAMILIES[name](2)
    rows = torch.randn(3, 4, family.size)
    q, u = family(rows), torch.randn(7, 3, 4, 2)
    apart = torch.stack([family(row).log_prob(u[:, i]) for i, row in enumerate(rows)], 1)
    assert_close(q.log_prob(u), apart, **EXACT)
    wide = family(rows[0]).expand(torch.Size([5, 4]))
    assert wide.batch_shape == (5, 4)
    assert wide.rsample((7,)).shape == (7, 5, 4, 2)
    assert wide.mean.shape == (5, 4, 2)
    assert_close(wide.log_prob(u[:5, 0]), family(rows[0]).log_prob(u[:5, 0]), **EXACT)
    one = family(rows[0, :1]).expand(torch.Size([4]))
    assert_close(one.log_prob(u[0, 0]), family(rows[0, 0]).log_prob(u[0, 0]), **EXACT)


# Where families are used ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_guides_take_the_family_and_reach_all_their_parameters(name):
    """Runs both guides under Pyro's plates, by one draw and by several."""
    x = drawn(rotated(), 8)
    amortized = learnable(family=FAMILIES[name])
    free = ppca(rotated(), guides.PerDatapoint(8, FAMILIES[name](2)))
    for pair in (amortized, free):
        assert "latent" in check_pair(pair, (x, torch.arange(8)))


def loss_and_gradient(family, particles=3):
    def function(rows):
        rows = rows.detach().requires_grad_()
        with torch.enable_grad():
            q, fixed = family(rows), family(rows.detach())
            bounds = pathwise_mean(
                lambda u: log_joint(u) - fixed.log_prob(u), q, particles
            ) + q.log_prob(q.rsample()).mul(0.1)
            return [bounds.detach(), *torch.autograd.grad(bounds.sum(), rows)]

    return function


def seeded(function, *args):
    torch.manual_seed(5)
    return function(*args)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_record_of_loss_and_gradient_holds_for_other_rows(name):
    family = FAMILIES[name](3)
    function = loss_and_gradient(family)
    recorded = tracing.record(function, [torch.randn(4, family.size)])
    other = torch.randn(4, family.size)
    found = seeded(recorded, other, *recorded.captured)
    assert_close(found, seeded(function, other), **EXACT)


COMPILED = {
    "LowRankNormal": families.LowRankNormal(2, rank=1),
    "NormalMixture": families.NormalMixture(2, components=2),
    "Flow": families.Flow(2, transforms=2, hidden=(3,), bins=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_steps_have_the_numbers_of_the_steps_as_written(name):
    family = COMPILED[name]
    function = loss_and_gradient(family)
    compiled = Compiled(function, when=True)
    for _ in range(4):
        rows = torch.randn(4, family.size)
        assert_close(seeded(compiled, rows), seeded(function, rows), **EXACT)
    assert compiled.is_compiled
