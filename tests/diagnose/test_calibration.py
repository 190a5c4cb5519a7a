"""Calibration finds a guide right that is right, and says of another in what way it is wrong."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from descents import without_the_compiler
from linear_gaussian import (
    SharedMean,
    assert_same,
    contents,
    guided,
    orthogonal,
    rotated,
    shifted,
)
from torch.testing import assert_close

from bayesvae import Pair, families, guides
from bayesvae.compiler import lowering
from bayesvae.diagnose import LEVELS, Calibration, calibrate, calibration
from bayesvae.diagnose.calibration import SETS
from bayesvae.diagnose.findings import DENSITIES, FINE, findings
from bayesvae.pairs import ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}
quick = partial(calibrate, draws=199, progress=False)


def verdicts(result):
    return {found.name: found.verdict for found in result.findings}


# Guides that are right -------------------------------------------------------------------------


def conjugate(x, scale=1.0):
    """The posterior of a rate under a Gamma(2, 1.5) prior and one Poisson count, or a sharper."""
    return dist.Gamma(scale * (2.0 + x), scale * torch.full_like(x, 2.5))


def poisson(posterior):
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.5))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", posterior(x))

    return Pair(model, guide)


def counted():
    """Shares on a simplex, a sequence of scales, and their exact posteriors."""

    def model(x):
        plate = pyro.plate("data", len(x), dim=-1)
        with pyro.plate("time", 2, dim=-2), plate:
            pyro.sample("step", dist.Normal(0.0, 1.0))
        with plate:
            parts = pyro.sample("parts", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", dist.Multinomial(10, parts), obs=x)

    def guide(x):
        plate = pyro.plate("data", len(x), dim=-1)
        with pyro.plate("time", 2, dim=-2), plate:
            pyro.sample("step", dist.Normal(0.0, 1.0))
        with plate:
            pyro.sample("parts", dist.Dirichlet(1 + x))

    return Pair(model, guide)


def shared():
    programs = SharedMean(0.7)
    return Pair(programs.model, programs.guide)


def clustered():
    """A prior of two clusters, and its exact posterior."""
    choice, means, scale = (
        dist.Categorical(torch.tensor([0.7, 0.3])),
        torch.tensor([-2.0, 2.0]),
        0.5,
    )

    def mixture(weights, loc, width):
        return dist.MixtureSameFamily(weights, dist.Normal(loc, width))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", mixture(choice, means, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        evidence = dist.Normal(means, (1 + scale**2) ** 0.5).log_prob(x[:, None])
        precision = 1 + scale**-2
        loc = (x[:, None] + means / scale**2) / precision
        with pyro.plate("data", len(x)):
            weights = dist.Categorical(logits=choice.logits + evidence)
            pyro.sample("z", mixture(weights, loc, torch.tensor(precision**-0.5).expand(2)))

    return Pair(model, guide)


RIGHT = {
    "mixture": (clustered, (), ["z"]),
    "correlated normal": (lambda: ppca(rotated()), (5,), ["z[0]", "z[1]"]),
    "gamma": (lambda: poisson(conjugate), (), ["rate"]),
    "simplex and sequence": (counted, (3,), ["step[0]", "step[1]", "parts[0]", "parts[1]"]),
    "given a shared latent": (shared, (), ["z"]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_guide_that_is_the_posterior_is_uniform_and_its_sets_hold_what_they_say(name):
    build, event, latents = RIGHT[name]
    n = 600
    result = quick(build(), n, event)
    assert list(verdicts(result)) == [*latents, *DENSITIES]
    assert set(verdicts(result).values()) == {FINE}
    assert result.p_value > 0.05
    assert (result.given != "") == ("shared" in name)
    coverage, level = result.coverage(), torch.tensor(LEVELS)
    assert list(coverage) == [*latents, SETS]
    for share in coverage.values():
        assert ((share - level).abs() < 4 * (level * (1 - level) / n).sqrt()).all()
    assert (result.k_hat < 0.7).all()


def test_a_right_guide_is_doubted_as_seldom_as_stated():
    names, sets = ["a", "b", *DENSITIES], 150
    doubted = 0
    for _ in range(sets):
        found = findings(names, torch.randint(0, 100, (150, 4)), 99)
        doubted += any(each.verdict != FINE for each in found)
    assert 0 < doubted / sets < 0.05 + 4 * (0.05 * 0.95 / sets) ** 0.5


# Guides that are wrong -------------------------------------------------------------------------


def true_margins(model):
    """The right mean and variance of each latent, and none of their correlation."""

    def posterior(x):
        exact = model.posterior(x)
        return dist.Normal(exact.mean, exact.stddev).to_event(1)

    return guided(model, posterior)


def prior(model):
    return guided(model, lambda x: dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))


OFF, CENTRAL = "truth too far out", "truth too central"
WRONG = {
    "too narrow": (lambda: shifted(orthogonal(), widen=0.7), "too narrow", OFF),
    "too wide": (lambda: shifted(orthogonal(), widen=1.4), "too wide", CENTRAL),
    "shifted up": (lambda: shifted(orthogonal(), 0.25), "shifted up", OFF),
    "shifted down": (lambda: shifted(orthogonal(), -0.25), "shifted down", OFF),
    "both": (lambda: shifted(orthogonal(), 0.2, 0.6), "shifted up and too narrow", OFF),
    "far beyond all draws": (lambda: shifted(orthogonal(), 3.0), "shifted up", OFF),
    "without correlations": (lambda: shifted(rotated()), "too narrow", OFF),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_guide_is_told_by_each_latent_and_by_its_sets(name):
    build, words, of_sets = WRONG[name]
    result = quick(build(), 800, (5,))
    found = verdicts(result)
    assert (found["z[0]"], found["z[1]"], found["log q(z | x)"]) == (words, words, of_sets)
    assert result.p_value < 1e-4
    short = result.coverage([0.8])[SETS].item() < 0.75
    assert short == (of_sets == OFF)


def test_shift_and_width_are_those_of_the_guide():
    model = orthogonal()
    result = quick(shifted(model, 0.1, 0.7), 3000, (5,), draws=499)
    for found, precision in zip(result.latents, model.precision.diagonal(), strict=True):
        shift = 0.1 * precision.sqrt() / 0.7
        assert found.width == pytest.approx(0.7, abs=0.05)
        assert found.shift == pytest.approx(shift.item(), abs=5 / 0.7 / 3000**0.5)
        assert found.shift_z == pytest.approx(0.7 * shift.item() * 3000**0.5, abs=5)


@pytest.mark.parametrize(
    ("build", "words"), [(true_margins, "draws too unlikely"), (prior, "draws too unlikely")]
)
def test_what_every_single_latent_hides_is_told_by_log_p(build, words):
    """A guide may ignore the data, or all correlations, and have uniform ranks everywhere."""
    result = quick(build(rotated()), 800, (5,))
    found = verdicts(result)
    assert (found["z[0]"], found["z[1]"]) == (FINE, FINE)
    assert found["log p(x, z)"] == words


def test_a_right_centre_and_width_do_not_make_up_for_a_wrong_shape():
    ranks = torch.where(torch.arange(400) % 2 == 0, 15, 84)[:, None]
    (found,) = findings(["z"], ranks, 99)
    assert abs(found.shift_z) < 1
    assert abs(found.width_z) < 1
    assert found.verdict == "of another shape"


def test_symmetry_finds_a_shift_whatever_the_width():
    for widen in (0.6, 1.5):
        (straight, *_), (bent, *_) = (
            quick(shifted(orthogonal(), shift, widen), 800, (5,)).findings for shift in (0.0, 0.3)
        )
        assert straight.symmetric > 1e-3
        assert bent.symmetric < 1e-6


@pytest.mark.parametrize(("scale", "words"), [(3.0, "too narrow"), (0.4, "too wide")])
def test_widths_of_constrained_latents_are_told(scale, words):
    result = quick(poisson(partial(conjugate, scale=scale)), 800, ())
    assert words in verdicts(result)["rate"]


def test_heavy_weights_are_counted():
    narrow = quick(shifted(orthogonal(), widen=0.3), 100, (5,))
    wide = quick(shifted(orthogonal(), widen=1.3), 100, (5,))
    assert (narrow.k_hat > 0.7).double().mean() > 0.5
    assert (wide.k_hat < 0.7).all()
    assert "k-hat above 0.7: 0.0 %" in str(wide)


# How ranks come about --------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [2**28, 30_000])
def test_ranks_are_those_of_a_loop_over_data_and_draws(monkeypatch, memory):
    """Of closed forms, and however the work is cut."""
    model, seen = rotated(), {}
    original = calibration._quantities

    def recorded(coordinates, truth, x, index, draws):
        u, *densities = original(coordinates, truth, x, index, draws)
        if draws > 1 or len(x) != 16:  # not the look at how much memory is needed
            for row, datum in enumerate(index.tolist()):
                seen.setdefault(datum, []).append((x[row], u[:, row]))
        return [u, *densities]

    monkeypatch.setattr(calibration, "_quantities", recorded)
    result = quick(shifted(model), 60, (5,), draws=99, memory=memory, compile=False)
    assert (len(seen[0]) > 1) == (memory < 2**28)
    for datum, parts in seen.items():
        x, truth = parts[0][0][None], parts[0][1][0]
        draws = torch.cat([u[1:] for _, u in parts])
        assert all(torch.equal(u[0], truth) for _, u in parts)
        assert len(draws) == 99
        q = dist.Normal(model.posterior(x).mean, model.precision.diagonal().rsqrt()).to_event(1)
        log_p, log_q = model.posterior(x).log_prob, q.log_prob
        columns = [*draws.T, log_p(draws), log_q(draws)]
        values = [*truth, log_p(truth), log_q(truth)]
        below = [sum(d < t for d in column) for column, t in zip(columns, values, strict=True)]
        assert result.ranks[datum].tolist() == [int(count) for count in below]


def test_truths_are_those_that_made_the_data(monkeypatch):
    """Otherwise a guide that ignores the data would be the only right one."""
    model, seen = rotated(), []
    original = calibration.joint_draws

    def recorded(*args):
        seen.append(original(*args))
        return seen[0]

    monkeypatch.setattr(calibration, "joint_draws", recorded)
    quick(ppca(model), 2000, (5,), draws=99)
    x, z = seen[0][0], seen[0][1]["z"].value
    noise = (x - model.loc - z @ model.weight.T) / model.scale
    assert noise.std().item() == pytest.approx(1, abs=5 / 20_000**0.5)


def test_ties_are_broken_at_random():
    n, draws = 4000, 99
    flat = [torch.zeros(draws + 1, n, 1), torch.zeros(draws + 1, n), torch.zeros(draws + 1, n)]
    ranks, _ = calibration._ranked_batch(lambda k: [each[: k + 1] for each in flat], draws, 30)
    assert ranks.min() == 0
    assert ranks.max() == draws
    middle = ranks.double().mean(0)
    assert ((middle - draws / 2).abs() < 5 * draws / (12 * n) ** 0.5).all()


@pytest.mark.parametrize("draws", [99, 136])
def test_coverage_of_evenly_spread_ranks_is_what_was_asked_for(draws):
    ranks = torch.arange(draws + 1)[:, None].expand(-1, 3)
    found = findings(["z", *DENSITIES], ranks, draws)
    result = Calibration(ranks, draws, found, torch.zeros(draws + 1), "", 0.0)
    for share in result.coverage([0.123, 0.5, 0.9]).values():
        assert_close(share, torch.tensor([0.123, 0.5, 0.9]), **EXACT)


def test_sets_of_q_hold_the_truths_that_q_gives_more_than_its_draws():
    ranks = torch.stack([torch.full((100,), 50), torch.arange(100), torch.full((100,), 90)], -1)
    found = findings(["z", *DENSITIES], ranks, 99)
    coverage = Calibration(ranks, 99, found, torch.zeros(100), "", 0.0).coverage([0.05, 0.2])
    assert coverage[SETS].tolist() == [0.0, 1.0]
    assert coverage["z"].tolist() == [1.0, 1.0]


def test_compiled_ranks_are_those_as_written(request, monkeypatch):
    without_the_compiler(request, monkeypatch)
    run_in_place, runs = lowering.compiled, []

    def counted(*args):
        runs.append(run_in_place(*args))
        return runs[-1]

    monkeypatch.setattr(lowering, "compiled", counted)
    pair, found = shifted(rotated()), []
    for compile in (False, True):
        torch.manual_seed(3)
        found.append(quick(pair, 60, (5,), draws=99, memory=50_000, compile=compile))
    assert runs
    assert torch.equal(found[0].ranks, found[1].ranks)
    assert_close(found[0].k_hat, found[1].k_hat, **EXACT)


def test_nothing_of_the_pair_is_changed():
    pair = shared()
    before = contents(pair)
    quick(pair, 60, (), draws=99)
    assert_same(before, contents(pair))


# What is refused -------------------------------------------------------------------------------


def discrete():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(0.5))

    return Pair(model, guide)


def auxiliary():
    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("rate", dist.LogNormal(a, 1.0))

    return Pair(poisson(conjugate).model, guide)


def without_numbers():
    """A guide that has no mean for some data, beyond the first ones that are looked at."""

    def guide(x, index):
        with pyro.plate("data", len(x)):
            loc = torch.where(index > 20, torch.nan, x)
            pyro.sample("rate", dist.LogNormal(loc, 1.0))

    return Pair(poisson(conjugate).model, guide)


def rows(size):
    return ppca(rotated(), guides.PerDatapoint(size, families.Normal(2)))


REFUSED = {
    "discrete": (discrete, (), "'z' is Bernoulli"),
    "auxiliary": (auxiliary, (), "calibrate needs log q.* auxiliary"),
    "rows of fewer data": (lambda: rows(10), (5,), "a row for each datum"),
    "rows of as many data": (lambda: rows(60), (5,), "a row for each datum"),
    "no numbers": (without_numbers, (), "NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_calibrated_is_refused_in_words(name):
    build, event, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        quick(build(), 60, event)


@pytest.mark.parametrize(("n", "draws"), [(49, 199), (60, 98)])
def test_too_few_data_or_draws_are_refused(n, draws):
    with pytest.raises(ValueError, match=f"got {n} and {draws}"):
        calibrate(ppca(rotated()), n, (5,), draws=draws)


def test_anything_but_a_pair_is_refused():
    with pytest.raises(TypeError, match="A Pair is needed"):
        calibrate(rotated(), 60, (5,))
