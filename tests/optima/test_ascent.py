"""The ascent finds the best member of a family for each datum by itself."""

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from bayesvae import families
from bayesvae.core.distributions import pathwise_mean
from bayesvae.optima import Ascender, Ascent


def target():
    """log p(u) of a correlated normal with a known constant, which is then its evidence."""
    p = dist.MultivariateNormal(torch.tensor([0.5, -2.0]), torch.tensor([[0.2, 0.2], [0.2, 0.5]]))
    return p, lambda u: p.log_prob(u) + 3.0


@pytest.mark.parametrize(("scale", "loc"), [(1.0, 0.0), (0.1, 3.0), (4.0, -3.0)])
def test_ascent_finds_the_best_member_from_afar_for_every_row(scale, loc):
    p, log_joint = target()
    start = dist.Normal(torch.full((3, 2), loc), scale).to_event(1)
    precision = p.precision_matrix
    gap = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    for family, expected in ((families.MultivariateNormal(2), 0.0), (families.Normal(2), gap)):
        found = Ascender(log_joint, family, Ascent())(family.rows(start))
        q = family(found.rows)
        tril = q.scale_tril if hasattr(q, "scale_tril") else q.stddev.diag_embed()
        q = dist.MultivariateNormal(q.mean, scale_tril=tril)
        missed = torch.distributions.kl_divergence(q, p) - expected
        assert (missed > -1e-10).all()
        assert (missed < 0.01).all()
        assert abs(found.movement) < 0.05


def test_ascent_stays_where_it_is_exact_because_its_gradient_has_no_noise_there():
    p, log_joint = target()
    family = families.MultivariateNormal(2)
    start = family.rows(p).expand(3, -1)
    found = Ascender(log_joint, family, Ascent())(start)
    torch.testing.assert_close(found.rows, start, rtol=0, atol=5e-3)
    assert abs(found.movement) < 5e-3


def test_the_start_is_the_best_candidate_of_each_datum_by_itself():
    p, log_joint = target()
    family = families.Normal(2)
    near, far = dist.Normal(p.mean, 0.4), dist.Normal(p.mean + 5, 0.4)
    near, far = (family.rows(q.to_event(1)) for q in (near, far))
    candidates = torch.stack([torch.stack([near, far, far]), torch.stack([far, near, far])])
    chosen = Ascender(log_joint, family, Ascent()).better_start(candidates)
    torch.testing.assert_close(chosen, torch.stack([near, near, far]), rtol=0, atol=0)


def test_ascent_ends_on_short_steps_and_so_nearer_to_the_optimum_than_its_first_steps_allow():
    p, log_joint = target()
    family = families.Normal(2)
    precision = p.precision_matrix
    best = dist.Normal(p.mean, precision.diagonal().rsqrt()).to_event(1)
    start = family.rows(best).expand(200, -1)
    off = []
    for decay in (1.0, 0.3):
        rows = Ascender(log_joint, family, Ascent(decay=decay))(start).rows
        loc, scale = family(rows).mean, family(rows).stddev
        squares = (scale**2 + (loc - p.mean) ** 2) @ precision.diagonal()
        cross = 2 * precision[0, 1] * (loc - p.mean).prod(-1)
        off.append(((squares + cross) / 2 - scale.log().sum(-1)).mean())
    lowest = 1 - best.stddev.log().sum()
    assert off[1] - lowest < 0.3 * (off[0] - lowest)


class TwoPoints:
    """A distribution with weights of its own: 0 and 1, with probabilities 1 - p and p."""

    def __init__(self, p):
        self.p = p

    def weighted_rsample(self, particles):
        u = torch.tensor([0.0, 1.0])[:, None, None].expand(2, len(self.p), 1)
        return u, torch.stack([1 - self.p, self.p])


def test_weighted_draws_are_taken_with_their_weights_and_gradients():
    p = torch.tensor([0.2, 0.7, 0.5], requires_grad=True)
    mean = pathwise_mean(lambda u: u[..., 0] * 3 + 1, TwoPoints(p), 1)
    assert_close(mean, 3 * p + 1)
    (slope,) = torch.autograd.grad(mean.sum(), p)
    assert_close(slope, torch.full_like(p, 3.0))


def test_a_mask_leaves_weighted_draws_as_they_are():
    family, numbers = families.NormalMixture(2, components=4), []
    q = family(torch.zeros(3, family.size)).mask(torch.tensor([True, False, True]))
    mean = pathwise_mean(lambda u: numbers.append(len(u)) or u.sum(-1) * 0 + 5, q, 1)
    assert numbers == [4]
    assert_close(mean, torch.full((3,), 5.0))


@pytest.mark.parametrize("name", ["MultivariateNormal", "NormalMixture"])
def test_rows_of_data_that_are_masked_out_stay_and_the_others_find_their_optimum(name):
    p, log_joint = target()
    mask = torch.tensor([True, False, True])
    family = getattr(families, name)(2)
    start = family.rows(dist.Normal(torch.zeros(3, 2), 1.0).to_event(1))

    def q_of(rows):
        return family(rows).mask(mask)

    found = Ascender(lambda u: log_joint(u) * mask, q_of, Ascent())(start).rows
    assert_close(found[1], start[1], rtol=0, atol=0)
    u = p.sample((4000,)).unsqueeze(1)
    missed = (p.log_prob(u) - family(found).log_prob(u)).mean(0)
    assert (missed[[0, 2]] < 0.03).all()
    assert missed[1] > 0.3


@pytest.mark.parametrize(("patience", "windows"), [(1, 1), (3, 3)])
def test_a_stage_ends_after_so_many_windows_without_gain_in_a_row(patience, windows):
    p, log_joint = target()
    looks = []

    def counted(u):
        looks.append(len(u))
        return log_joint(u)

    family = families.MultivariateNormal(2)
    ascent = Ascent(particles=3, rate=1e-12, window=4, stages=2, patience=patience)
    Ascender(counted, family, ascent, look=5, compile=False)(family.rows(p).expand(3, -1))
    assert looks.count(3) == 2 * windows * 4
    assert looks.count(5) == 2 * windows + 1


def test_a_window_lost_after_a_gain_is_the_first_one_again():
    """Catches a count that is not set back, and gains over anything but the best look."""
    values = iter([0.0, -1.0, -0.5, 2.0, 1.0, 1.5, 1.9, 9.0])

    def scripted(u):
        return (u * 0).sum(-1) + (next(values) if len(u) == 5 else 0.0)

    family = families.Normal(1)
    ascent = Ascent(particles=3, rate=1e-12, window=1, stages=1, patience=3)
    found = Ascender(scripted, family, ascent, look=5, compile=False)(torch.zeros(2, 2))
    assert next(values) == 9.0
    assert found.movement == pytest.approx(0.4)
