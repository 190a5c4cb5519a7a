"""The ascent finds the best member of a family for each datum by itself."""

import pyro.distributions as dist
import pytest
import torch

from bayesvae import families
from bayesvae.ascent import Ascender, Ascent


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
