"""Flows are what their bijections make of noise."""

import pytest
import torch
from family_members import EXACT, diagonal, full, low_rank
from torch.testing import assert_close

from bayesvae import families
from bayesvae.families import flow

SHAPES = [
    {"dim": 1},
    {"dim": 2},
    {"dim": 5, "hidden": (7, 3), "bins": 6},
    {"dim": 3, "hidden": (), "transforms": 3},
    {"dim": 4, "transforms": 0},
]


def bent(leading=(), **shape):
    """A flow far from a normal."""
    family = families.Flow(**shape)
    rows = torch.randn(*leading, family.size)
    rows[..., families.MultivariateNormal(family.dim).size :] *= 5
    return family(rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_is_that_of_the_change_of_variables(shape):
    q, noise = bent(**shape), torch.randn(4, shape["dim"])
    for each in noise:
        jacobian = torch.autograd.functional.jacobian(lambda e: q._pushed(e)[0], each)
        u, log_slope = q._pushed(each)
        assert_close(log_slope, jacobian.det().abs().log(), **EXACT)
        assert jacobian.det() > 0
        assert_close(q.log_prob(u), flow._log_standard(each) - log_slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_inverse_is_one_inside_and_beyond_the_splines(shape):
    q, noise = bent((3,), **shape), 4 * torch.randn(50, 3, shape["dim"])
    assert noise.abs().max() > 5
    u, forth = q._pushed(noise)
    found, back = q._pulled(u)
    assert_close(found, noise, rtol=1e-7, atol=1e-7)
    assert_close(back, -forth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_latent_is_bent_and_depends_on_the_others(shape):
    q, dim = bent(**shape), shape["dim"]

    def to_latents(e):
        return q._pushed(e)[0]

    curved = torch.zeros(dim, dtype=bool)
    for noise in torch.randn(5, dim):
        hessians = torch.autograd.functional.jacobian(
            lambda e: torch.autograd.functional.jacobian(to_latents, e, create_graph=True), noise
        )
        curved |= (hessians.abs() > 1e-6).flatten(1).any(1)
    assert curved.all()


@pytest.mark.parametrize("make", [diagonal, full, low_rank])
def test_a_start_is_the_normal_that_it_is_given(make):
    q, family = make(torch.rand(4, 3) + 0.1), families.Flow(3)
    found, u = family(family.rows(q)), q.sample((10,))
    assert_close(found.log_prob(u), q.log_prob(u), rtol=1e-8, atol=1e-8)
    assert_close(found.mean, q.mean, **EXACT)
    assert_close(found.variance, q.variance, **EXACT)


def test_a_start_has_a_slope_in_every_spline_and_last_layer():
    """Catches networks of zeros, whose layers wait for each other."""
    family = families.Flow(3, transforms=2, hidden=(4,))
    rows = torch.zeros(5, family.size, requires_grad=True)
    q, u = family(rows), torch.randn(200, 5, 3)
    (slope,) = torch.autograd.grad((q.log_prob(u) * u.sum(-1)).sum(), rows)
    first = families.MultivariateNormal(3).size
    layers = [(1, 4, 4), (2, 4, 2)]  # latents kept, hidden units, outputs
    assert (slope[:, : first + 3 * 11] != 0).all()
    place = first + 3 * 11
    for kept, hidden, outputs in layers:
        place += (kept + 1) * hidden
        last = slope[:, place : place + (hidden + 1) * outputs]
        assert (last != 0).all()
        place += (hidden + 1) * outputs
    assert place == family.size


def test_equal_families_start_alike_and_keep_the_random_stream():
    torch.manual_seed(1)
    u = torch.rand(3)
    torch.manual_seed(1)
    densities = []
    for hidden in ([5], (5,)):
        flow._start.cache_clear()
        family = families.Flow(3, hidden=hidden)
        q = family(0.1 * torch.ones(family.size))
        densities.append(q.log_prob(u))
    assert torch.equal(*densities)
    assert torch.equal(torch.rand(3), u)


def test_the_density_of_own_draws_is_known_from_drawing_them():
    """In value and in gradient what a pass in the other direction gives."""
    family = families.Flow(3)
    rows = torch.randn(4, family.size, requires_grad=True)
    q = family(rows)
    u = q.rsample((5,))
    gradients = []
    for value in (u, u.clone()):
        log_q = q.log_prob(value)
        (slope,) = torch.autograd.grad(log_q.sum(), rows, retain_graph=True)
        gradients.append((log_q.detach(), slope))
    for known, computed in zip(*gradients, strict=True):
        assert_close(known, computed, rtol=1e-6, atol=1e-6)


def test_draws_without_gradient_have_a_density_with_one():
    """Catches a density remembered from under ``no_grad``."""
    family = families.Flow(2)
    rows = torch.randn(4, family.size, requires_grad=True)
    q = family(rows)
    log_q = q.log_prob(q.sample((3,)))
    (slope,) = torch.autograd.grad(log_q.sum(), rows)
    assert (slope != 0).float().mean() > 0.5


def test_moments_over_fixed_points_are_near_those_of_draws():
    family = families.Flow(4)
    q = family(torch.randn(3, family.size))
    draws = q.sample((20_000,))
    assert_close(q.mean, draws.mean(0), rtol=0, atol=0.1 * q.stddev.max().item())
    assert_close(q.stddev / draws.std(0), torch.ones(3, 4), rtol=0, atol=0.1)


def test_second_derivatives_exist():
    family = families.Flow(2)
    rows = torch.randn(2, family.size, requires_grad=True)
    bound = family(rows).rsample((3,)).square().sum()
    (slope,) = torch.autograd.grad(bound, rows, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), rows)
    assert torch.isfinite(second).all()
    assert (second != 0).any()
