"""Wider families come nearer to posteriors that no normal holds."""

import pyro.distributions as dist
import pytest
import torch
from comparing import quiet
from linear_gaussian import drawn, learnable, rotated, shifted
from torch.testing import assert_close

from bayesvae import families
from bayesvae.optima import Ascender, Ascent


def banana(u):
    """u_1 ~ N(0, 1), u_2 | u_1 ~ N(u_1^2, 0.3^2): a bent ridge."""
    first, second = u.unbind(-1)
    return dist.Normal(0.0, 1.0).log_prob(first) + dist.Normal(first**2, 0.3).log_prob(second)


def divergences(q):
    """KL(q || banana) by quadrature, ``(B,)`` for batch shape ``(B,)``; log p(x) is zero here."""
    lines = torch.linspace(-6, 6, 241), torch.linspace(-6, 24, 601)
    u = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 1, 2)
    log_q = q.log_prob(u)
    volume = 0.05 * 0.05
    assert ((log_q.exp().sum(0) * volume - 1).abs() < 1e-3).all()
    return (log_q.exp() * (log_q - banana(u))).sum(0) * volume


def best(family):
    start = family.rows(dist.Normal(torch.zeros(4, 2), 1.0).to_event(1))
    ascender = Ascender(banana, family, Ascent(patience=family.patience), compile=False)
    return divergences(family(ascender(start).rows))


def test_a_diagonal_normal_misses_of_a_banana_what_quadrature_says():
    """The best there is, by descending the integral itself, against an ascent and its bound."""
    family = families.Normal(2)
    starts = dist.Normal(torch.tensor([[-0.5, 0.5], [0.5, 0.5]]), 0.7).to_event(1)
    rows = family.rows(starts).requires_grad_()
    descent = torch.optim.LBFGS([rows], max_iter=15, line_search_fn="strong_wolfe")

    def loss():
        descent.zero_grad()
        total = divergences(family(rows)).sum()
        total.backward()
        return total

    descent.step(loss)
    least = divergences(family(rows)).min().item()
    ascender = Ascender(banana, family, Ascent(), compile=False)
    found = family(ascender(family.rows(starts)).rows)
    u = found.sample((50_000,))
    bound = (banana(u) - found.log_prob(u)).mean(0)
    for missed in (divergences(found), -bound):
        assert_close(missed, torch.full((2,), least), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["NormalMixture", "Flow"])
def test_most_of_what_a_diagonal_normal_misses_of_a_banana_is_found(name):
    missed, diagonal = best(getattr(families, name)(2)), best(families.Normal(2))
    assert (missed > 0).all()
    assert (missed < diagonal / 4).all()


def test_compare_takes_the_wide_families_each_started_from_the_ones_before():
    model = rotated()
    x = drawn(model, 12)
    makers = (
        families.Normal,
        families.LowRankNormal,
        families.NormalMixture,
        families.MultivariateNormal,
        families.Flow,
    )
    split = quiet(shifted(model, 0.3), x, families=makers, particles=2000).splits["train"]
    assert split.own == "Normal"
    missed = {name: model.log_evidence(x) - bound.value for name, bound in split.bounds.items()}
    assert missed["Normal"].mean().item() == pytest.approx(model.diagonal_gap().item(), abs=0.03)
    for name in ("LowRankNormal", "MultivariateNormal", "Flow"):  # which hold the posterior
        assert missed[name].mean().abs() < 0.02, name
    assert missed["NormalMixture"].mean() < missed["Normal"].mean() / 2


@pytest.mark.parametrize("name", ["LowRankNormal", "NormalMixture", "Flow"])
def test_a_guide_of_a_wide_family_is_found_to_be_its_own(name):
    pair, x = learnable(family=getattr(families, name)), drawn(rotated(), 6)
    short = Ascent(windows=1, window=5)
    makers = (families.Normal, getattr(families, name))
    split = quiet(pair, x, families=makers, ascent=short, particles=50).splits["train"]
    assert split.own == name
    assert torch.isfinite(split.amortization_gap).all()
