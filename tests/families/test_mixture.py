"""Low-rank normals and mixtures of normals are what their formulas say."""

import pyro.distributions as dist
import pytest
import torch
from family_members import EXACT, diagonal, full
from torch.testing import assert_close

from bayesvae import families
from bayesvae.families.mixture import MixtureOfNormals

# Low rank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (3, 2), (2, 5)])
def test_covariance_is_that_of_the_row(dim, rank):
    family = families.LowRankNormal(dim, rank)
    rows = torch.randn(4, family.size)
    loc, raw, rest = rows.split([dim, dim, dim * rank], -1)
    scale, q = families.positive(raw), family(rows)
    start = family(torch.zeros_like(rows))
    zero = start.cov_factor / start.cov_diag.sqrt().unsqueeze(-1)
    factor = rest.reshape(4, dim, rank) + zero
    correlated = torch.eye(dim) + factor @ factor.mT
    expected = scale.unsqueeze(-1) * correlated * scale.unsqueeze(-2)
    assert_close(q.covariance_matrix, expected, **EXACT)
    assert_close(q.mean, loc, **EXACT)


def test_a_start_is_nearly_the_diagonal_normal_with_a_slope_in_every_direction():
    """Catches a start at A = 0, where no gradient says which way."""
    family, scale = families.LowRankNormal(6, rank=3), torch.rand(4, 6) + 0.1
    q = diagonal(scale)
    rows = family.rows(q).requires_grad_()
    found = family(rows)
    assert_close(found.variance, q.variance, **EXACT)
    correlation = found.covariance_matrix / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    assert (correlation - torch.eye(6)).abs().max() < 0.01
    other = full(scale)
    (slope,) = torch.autograd.grad(torch.distributions.kl_divergence(found, other).sum(), rows)
    assert (slope[:, 12:].abs() > 1e-4).float().mean() > 0.9


# Mixtures ----------------------------------------------------------------------------------------


def mixture(*shape):
    logits, loc = torch.randn(*shape[:-1]), torch.randn(shape)
    return MixtureOfNormals(logits, loc, torch.rand(shape) + 0.1)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_density_and_moments_are_torchs(batch):
    q = mixture(*batch, 5, 3)
    components = dist.Normal(q.loc, q.scale).to_event(1)
    torchs = dist.MixtureSameFamily(dist.Categorical(logits=q.logits), components)
    u = 3 * torch.randn(7, *batch, 3)
    assert_close(q.log_prob(u), torchs.log_prob(u), **EXACT)
    assert_close(q.mean, torchs.mean, **EXACT)
    assert_close(q.variance, torchs.variance, **EXACT)


def test_density_holds_far_out_where_every_component_underflows():
    q = mixture(5, 3)
    far = q.log_prob(torch.full((3,), 1e3))
    assert torch.isfinite(far)
    assert far < -1e5


@pytest.mark.parametrize(("particles", "each"), [(1, 1), (5, 1), (6, 2), (10, 2)])
def test_every_component_gives_as_many_draws_under_its_own_weight(particles, each):
    q = mixture(4, 5, 3)
    narrow = MixtureOfNormals(q.logits, q.loc, torch.full_like(q.scale, 1e-9))
    draws, weights = narrow.weighted_rsample(particles)
    assert draws.shape == (5 * each, 4, 3)
    for place, (draw, weight) in enumerate(zip(draws, weights, strict=True)):
        assert_close(draw, q.loc[:, place // each], rtol=0, atol=1e-7)
        assert_close(weight, q.probs[:, place // each] / each, **EXACT)


def test_gradients_vanish_without_noise_where_the_mixture_is_exact():
    """The score of q is left out, and the weights' gradients of a constant cancel."""
    family = families.NormalMixture(2, components=3)
    row = torch.randn(1, family.size)
    rows = row.expand(50, -1).clone().requires_grad_()
    exact = family(row)
    draws, weights = family(rows).weighted_rsample(3)
    terms = exact.log_prob(draws) + 7.0 - family(rows.detach()).log_prob(draws)
    (slope,) = torch.autograd.grad((weights * terms).sum(), rows)
    assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


def test_a_draw_of_one_normal_moves_as_its_noise_says():
    loc, scale = torch.randn(1, 3).requires_grad_(), (torch.rand(1, 3) + 0.1).requires_grad_()
    q = MixtureOfNormals(torch.zeros(1), loc, scale)
    draw, ways = q.rsample(), torch.randn(3)
    by_loc, by_scale = torch.autograd.grad(draw @ ways, (loc, scale))
    assert_close(by_loc[0], ways, **EXACT)
    assert_close(by_scale[0], ways * ((draw - loc) / scale)[0].detach(), **EXACT)


def test_draws_keep_their_conditional_distribution_functions_when_parameters_move():
    """First and second derivatives against those of F^-1(F(u)), in both tails."""
    logits, loc, scale = torch.randn(3), torch.randn(3, 1), torch.rand(3, 1) + 0.3
    ways = [torch.randn_like(each) for each in (logits, loc, scale)]

    def at(step):
        moved = (p + step * w for p, w in zip((logits, loc, scale), ways, strict=True))
        return MixtureOfNormals(*moved)

    def reached(q, u):
        below = dist.Normal(q.loc[:, 0], q.scale[:, 0]).cdf(u.unsqueeze(-1))
        return (q.probs * below).sum(-1)

    def moved(u, step):
        """The point at which the moved mixture reaches what the mixture reaches at u."""
        here = u
        for _ in range(20):
            missing = reached(at(step), here) - reached(at(0.0), u)
            here = here - missing / at(step).log_prob(here[:, None]).exp()
        return here

    step = torch.zeros(100, requires_grad=True)  # one for each draw
    u = torch.cat([at(one).rsample((1,))[0] for one in step])
    (slope,) = torch.autograd.grad(u.sum(), step, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), step)
    u, small = u.detach(), 1e-3
    assert u.max() > loc.max()
    assert u.min() < loc.min()
    ahead, behind = moved(u, small), moved(u, -small)
    assert_close(slope.detach(), (ahead - behind) / (2 * small), rtol=1e-4, atol=1e-4)
    assert_close(second, (ahead - 2 * u + behind) / small**2, rtol=1e-3, atol=1e-3)


def test_draws_of_several_latents_move_with_all_that_came_before():
    """F_i(u_i | u_1 ... u_{i-1}) keeps its value to second order; catches a slope left out."""
    logits, loc, scale = torch.randn(3), torch.randn(3, 4), torch.rand(3, 4) + 0.3
    ways = [torch.randn_like(each) for each in (logits, loc, scale)]
    step = torch.zeros((), requires_grad=True)
    moved = (p + step * w for p, w in zip((logits, loc, scale), ways, strict=True))
    q = MixtureOfNormals(*moved)
    u, given = q.rsample((50,)), q.probs.expand(50, 3)
    for i in range(4):
        normals = dist.Normal(q.loc[:, i], q.scale[:, i])
        here = u[:, i : i + 1]
        reached = (given * normals.cdf(here)).sum(-1) / given.sum(-1)
        (first,) = torch.autograd.grad(reached @ torch.randn(50), step, create_graph=True)
        (second,) = torch.autograd.grad(first, step, retain_graph=True)
        assert_close(torch.stack([first, second]), torch.zeros(2), rtol=0, atol=1e-8)
        given = given * normals.log_prob(here).exp()


@pytest.mark.parametrize("side", [-1, 1])
def test_tails_have_derivatives_in_float32_too(side):
    """Catches a distribution function that is rounded to one where differences of it count."""
    loc = torch.tensor([[0.0, 0.5], [0.3, -0.2]])
    slopes = []
    for dtype in (torch.float32, torch.float64):
        given = [torch.zeros(2), loc, torch.tensor([[1.0, 1.0], [1.2, 0.9]])]
        given = [each.to(dtype).requires_grad_() for each in given]
        far = torch.full((2,), 6.5 * side, dtype=dtype)
        draw = MixtureOfNormals(*given)._moving(far)
        slopes.append(torch.autograd.grad(draw @ torch.tensor([1.0, 2.0], dtype=dtype), given))
    for rough, fine in zip(*slopes, strict=True):
        assert_close(rough.double(), fine, rtol=1e-3, atol=1e-5)


def test_drawing_without_gradients_takes_the_same_draws():
    q = mixture(4, 3, 2)
    torch.manual_seed(1)
    draws = q.sample((5,))
    torch.manual_seed(1)
    assert torch.equal(q.rsample((5,)), draws)


def test_components_of_a_start_differ():
    family = families.NormalMixture(3, components=4)
    for rows in (torch.zeros(family.size), family.rows(diagonal(torch.ones(3)))):
        q = family(rows)
        apart = (q.loc.unsqueeze(0) - q.loc.unsqueeze(1)).norm(dim=-1) / q.scale.max()
        assert (apart + 10 * torch.eye(4) > 0.3).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: families.LowRankNormal(3, rank=0), "rank >= 1; got 0"),
        (lambda: families.NormalMixture(3, components=0), "components >= 1; got 0"),
        (lambda: families.Flow(3, transforms=-1), "transforms >= 0.*got -1, 4 and"),
        (lambda: families.Flow(3, bins=1), "bins >= 2"),
        (lambda: families.Flow(3, hidden=(4, 0)), "widths >= 1"),
    ],
)
def test_numbers_out_of_range_are_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()
