"""Steps from the guide close its amortization gap, from exactly where the guide is."""

from functools import cache

import pytest
import torch
from comparing import SHORT, quiet
from linear_gaussian import diagonal_optimum, drawn, kl_to_posterior, rotated, shifted

from bayesvae import Semi, families, guides, networks
from bayesvae.core.estimates import mean_and_error
from bayesvae.gaps.batch_search import route_of
from bayesvae.pairs import ppca

STEPS = (0, 1, 5, 20, 80)
SHIFT = torch.tensor([0.6, -0.4], dtype=torch.float64)


@cache
def stepped():
    """The comparison of a guide that is the best diagonal normal, shifted."""
    model = rotated()
    x = drawn(model, 60)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"families": (families.Normal,), "particles": 2000, "batch_size": 40}
        semi = Semi(STEPS, particles=16)
        result = quiet(shifted(model, SHIFT), x, semi=semi, compile=False, **options)
    return model, x, result.splits["train"]


def left_exactly(model, x, split, name):
    """KL(q || best of the family), in closed form, of the q that was kept."""
    family, rows = split.posteriors.members[name]
    q = family(rows).base_dist
    loc = split.posteriors.loc + split.posteriors.scale * q.loc
    q = torch.distributions.Normal(loc, split.posteriors.scale * q.scale)
    return kl_to_posterior(model, q, x) - model.diagonal_gap()


def test_the_bound_after_no_steps_is_the_guides():
    _, _, split = stepped()
    error = (split.semi[0].stderr.square() + split.guide.stderr.square()).sqrt()
    z = (split.semi[0].value - split.guide.value) / error
    assert z.abs().max() < 4.5
    assert z.mean().abs() < 4 / len(z) ** 0.5
    guide, none = (split.posteriors.members[name] for name in ("guide", route_of(0)))
    assert torch.equal(guide.rows, none.rows)


def test_more_steps_close_more_of_the_gap_and_many_close_all_of_it():
    model, x, split = stepped()
    exact = [left_exactly(model, x, split, route_of(k)).mean().item() for k in STEPS]
    assert exact[0] == pytest.approx((SHIFT @ model.precision @ SHIFT / 2).item(), rel=1e-9)
    assert exact[:-1] == sorted(exact[:-1], reverse=True)
    assert exact[-1] < 0.03 * exact[0]
    assert exact[2] > 0.2 * exact[0]


def test_every_bound_is_the_one_of_the_q_that_was_kept():
    """Catches rows that are kept in other coordinates, or of another number of steps."""
    model, x, split = stepped()
    truth = model.log_evidence(x).detach() - model.diagonal_gap().detach()
    for k in STEPS:
        exact = truth - left_exactly(model, x, split, route_of(k)).detach()
        z = (split.semi[k].value - exact) / split.semi[k].stderr
        assert z.abs().max() < 4.5, k
        assert z.mean().abs() < 4 / len(z) ** 0.5, k


def test_what_steps_close_and_leave_adds_up_to_the_amortization_gap():
    _, _, split = stepped()
    for k in STEPS:
        total = split.gained(k) + split.left(k)
        torch.testing.assert_close(total, split.amortization_gap, rtol=0, atol=1e-10)
    assert abs(mean_and_error(split.left(80))[0]) < 0.02


def test_a_step_is_the_slope_of_the_bound_in_units_of_the_guides_scale():
    model, small = rotated(), torch.tensor([0.05, -0.03], dtype=torch.float64)
    x = drawn(model, 8)
    semi = Semi((1,), rate=0.1, particles=40_000)
    split = quiet(shifted(model, small), x, semi=semi, ascent=SHORT, particles=2).splits["train"]
    posteriors = split.posteriors
    moved = posteriors.members[route_of(1)].rows - posteriors.members["guide"].rows
    # At the best scales only the loc has a slope: -P (m - mu) in u.
    slope = -(posteriors.scale * (model.precision @ small))
    assert slope.norm(dim=-1).max() < 1  # else steps are cut
    expected = torch.cat([0.1 * slope, torch.zeros_like(slope)], -1).detach()
    torch.testing.assert_close(moved, expected, rtol=0, atol=2e-3)


MEMBERS = ["Normal", "MultivariateNormal", "LowRankNormal", "NormalMixture", "Flow"]


@pytest.mark.parametrize("name", MEMBERS)
def test_steps_begin_at_the_guide_itself_in_whatever_family_it_is(name):
    """Catches a guide that is carried into standardised coordinates by its moments alone."""
    model, make = rotated(), getattr(families, name)
    x = drawn(model, 5)
    own = guides.Amortized(networks.MLP(5, (), make(2).size), make(2))
    options = {"families": (make,), "ascent": SHORT, "particles": 5}
    split = quiet(ppca(model, own), x, semi=Semi((0,)), **options)
    posteriors = split.splits["train"].posteriors
    with torch.no_grad():
        guide = own.posterior(x)
        u = guide.sample((7,))
        for member in ("guide", route_of(0)):
            found = posteriors.q(member).log_prob(u)
            torch.testing.assert_close(found, guide.log_prob(u), rtol=0, atol=1e-8)


def test_a_part_of_the_posteriors_is_those_of_a_part_of_the_data():
    _, x, split = stepped()
    u, part = torch.randn(4, 3, 2), torch.tensor([50, 2, 31])
    whole = split.posteriors.q("Normal")
    some = split.posteriors.q("Normal", part)
    places = torch.zeros(4, len(x), 2)
    places[:, part] = u
    assert torch.equal(some.log_prob(u), whole.log_prob(places)[:, part])
    assert torch.equal(split.posteriors.x, x)
    assert split.posteriors.index.tolist() == list(range(len(x)))
    assert split.posteriors.latents == ("z",)
    with pytest.raises(ValueError, match=r"q takes one of 'guide', 'Normal'.* got 'Cauchy'"):
        split.posteriors.q("Cauchy")


def test_the_optimum_that_was_kept_is_the_best_of_its_family():
    model, x, split = stepped()
    assert left_exactly(model, x, split, "Normal").abs().max() < 0.02
    q, best = split.posteriors.q("Normal"), diagonal_optimum(model, x)
    draws = q.sample((2000,))
    assert (draws.mean(0) - best.mean).abs().max() < 0.15


@pytest.mark.parametrize(
    "bad", [{"steps": ()}, {"steps": (-1,)}, {"steps": (2, 2)}, {"rate": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="Semi needs steps >= 0, each once"):
        quiet(shifted(rotated()), drawn(rotated(), 3), semi=Semi(**bad))


def test_a_guide_that_no_family_holds_gets_a_reason_instead_of_steps():
    model = rotated()
    makers = (families.MultivariateNormal,)
    result = quiet(shifted(model), drawn(model, 6), families=makers, ascent=SHORT, semi=Semi((1,)))
    assert result.splits["train"].semi == {}
    assert "No steps were taken from the guide: it is a member of none" in str(result)


class Narrow(families.Normal):
    """Diagonal normals with deviations below 0.9: none of unit scale."""

    def contains(self, distribution):
        return super().contains(distribution) and bool((distribution.stddev < 0.9).all())


def test_a_family_that_does_not_hold_the_guide_in_its_own_units_gets_that_reason():
    model = rotated()
    options = {"families": (Narrow,), "ascent": SHORT, "semi": Semi((1,))}
    result = quiet(shifted(model), drawn(model, 6), **options)
    split = result.splits["train"]
    assert (split.own, dict(split.semi)) == ("Narrow", {})
    assert "guide" not in split.posteriors.members
    assert "Narrow does not contain it in units of its own mean" in str(result)
