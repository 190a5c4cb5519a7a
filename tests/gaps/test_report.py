"""The whole report: evidence of two kinds, steps, prices, files, on pairs of every making."""

import csv
import math
import sys
from functools import cache

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparing import SHORT, Tutorial, quiet
from linear_gaussian import drawn, rotated, shifted
from matplotlib.figure import Figure
from torch import nn

from bayesvae import Annealing, Pair, Semi, families, guides, proposals
from bayesvae.core.estimates import mean_and_error
from bayesvae.gaps.costs import Price, semi_price
from bayesvae.optima import Ascent
from bayesvae.pairs import ppca

QUICK = Annealing(temperatures=40, leapfrogs=4, pilot=15)


@cache
def whole():
    """Everything that `compare` can do, of a guide beside the best diagonal normal."""
    model = rotated()
    seen, unseen = drawn(model, 24), drawn(model, 18, seed=2)
    options = {"semi": Semi((1, 5)), "annealing": QUICK, "training_seconds": 20.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = shifted(model, 0.3)
        result = quiet(pair, seen, unseen, ascent=SHORT, compile=False, **options)
    return model, {"train": seen, "unseen": unseen}, result


# log p(x) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "unseen"])
def test_annealed_evidence_is_the_truth_within_its_errors_and_what_gaps_are_taken_from(name):
    model, data, result = whole()
    split, truth = result.splits[name], model.log_evidence(data[name]).detach()
    lower = split.annealed.lower
    mean, error = mean_and_error(lower.value - truth)
    assert abs(mean) < 4 * error
    assert error < 0.05
    assert split.log_evidence is lower  # for every datum, and not the larger of two
    torch.testing.assert_close(split.inference_gap, lower.value - split.guide.value)
    assert not torch.equal(split.importance.value, lower.value)


def test_no_upper_bound_is_claimed_of_data_that_were_not_drawn_from_the_model():
    _, _, result = whole()
    for split in result.splits.values():
        assert split.annealed.upper.bound == "none"
        assert {split.importance.bound, split.annealed.lower.bound} == {"lower"}
    lines = [line for line in str(result).splitlines() if "log p(x) " in line]
    assert "upper" not in str(result)
    assert sum("no bound" in line for line in lines) == 2
    assert sum("a lower bound; all gaps are from it" in line for line in lines) == 2


def test_annealed_evidence_is_conditional_on_the_same_shared_latents():
    """Catches unseen data that are annealed given what the guide reads in them."""
    pair = Pair(*counts_and_numbers(reads=True))
    seen, unseen = numbers(20), numbers(16) + 3.0
    split = quiet(pair, seen, unseen, ascent=SHORT, annealing=QUICK, compile=False).splits[
        "unseen"
    ]
    centre = seen[:16, 1].mean()
    mean, error = mean_and_error(split.annealed.lower.value - evidence(unseen, centre))
    assert abs(mean) < 5 * error + 0.01
    assert split.annealed.lower.given == split.guide.given != ""


def test_annealing_that_cannot_start_at_a_guide_is_refused_before_any_work(monkeypatch):
    model = rotated()

    def guide(x):
        with pyro.plate("data", len(x)):
            z = model.posterior(x).mean
            extra = pyro.sample("extra", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(z + 0.1 * extra.unsqueeze(-1), 0.7).to_event(1))

    pair, x = ppca(model, guide), drawn(model, 5)
    with monkeypatch.context() as patch:
        patch.setattr("bayesvae.gaps.decomposition._compared", lambda *_: pytest.fail("worked"))
        with pytest.raises(ValueError, match="auxiliary latents"):
            quiet(pair, x, ascent=SHORT, annealing=QUICK)
    prior = QUICK._replace(start=proposals.PRIOR)
    split = quiet(pair, x, families=(), annealing=prior, compile=False).splits["train"]
    assert (split.annealed.lower.value - model.log_evidence(x)).abs().max() < 1.0
    with pytest.raises(ValueError, match="Annealing needs pilot"):
        quiet(pair, x, annealing=QUICK._replace(pilot=-1))


# Prices -----------------------------------------------------------------------------------------


def test_prices_count_bytes_and_steps_come_after_the_guide():
    _, _, result = whole()
    prices = {price.route: price for price in result.prices}
    guide, search = prices["guide"], prices["Normal"]
    assert search.stored == 8 * search.parameters == 8 * 4000
    assert list(prices)[1:3] == ["semi-amortized, 1 step", "semi-amortized, 5 steps"]
    for name in list(prices)[1:3]:
        assert prices[name].stored == guide.stored
        assert prices[name].working > guide.working > 0
    slow = semi_price(guide._replace(seconds=4.0), "3 steps", seconds=7.0, working=0)
    assert (slow.seconds, slow.working) == (11.0, guide.working)
    # A step has 2 draws of 2 numbers for each datum, and Adam two moments of 4 numbers.
    assert search.working > 8 * (2 * 2 + 2 * 4)


def test_the_guide_is_cheaper_from_where_its_training_is_paid_for():
    guide, search = Price("guide", 2.0, 1), Price("Normal", 6.0, 1)
    assert guide.break_even(search, 10.0) == 2500
    paid = 10.0 + 2500 * guide.seconds / 1000
    assert paid <= 2500 * search.seconds / 1000
    assert search.break_even(guide, 10.0) is None
    _, _, result = whole()
    route, number = result.break_even()
    assert route == "Normal"
    prices = {price.route: price for price in result.prices}
    assert number == prices["guide"].break_even(prices["Normal"], 20.0)
    assert f"From {number:,} unseen data on the guide is cheaper than Normal" in str(result)
    dear = result._replace(prices=(guide._replace(seconds=9.0), search))
    assert "never cheaper than Normal" in str(dear)
    assert result._replace(training_seconds=None).break_even() is None


def test_a_guide_that_serves_no_unseen_data_has_no_price_for_them():
    model = rotated()
    pair = ppca(model, guides.PerDatapoint(8, families.Normal(2)))
    with pytest.raises(ValueError, match="`training_seconds` needs a guide that serves unseen"):
        quiet(pair, drawn(model, 8), ascent=SHORT, training_seconds=3.0)


# Files ------------------------------------------------------------------------------------------


def test_csv_has_every_estimate_with_its_error(tmp_path):
    _, data, result = whole()
    result.to_csv(tmp_path / "gaps.csv")
    rows = list(csv.DictReader((tmp_path / "gaps.csv").read_text().splitlines()))
    assert len(rows) == sum(map(len, data.values()))
    for name, split in result.splits.items():
        own = [row for row in rows if row["split"] == name]
        held = {
            "log_evidence": split.annealed.lower,
            "reverse": split.annealed.upper,
            "importance": split.importance,
            "semi_5": split.semi[5],
            "optimum_Normal": split.bounds["Normal"],
        }
        for column, estimate in held.items():
            for suffix, numbers in (("", estimate.value), ("_stderr", estimate.stderr)):
                found = [float(row[column + suffix]) for row in own]
                assert found == pytest.approx(numbers.tolist(), rel=1e-5)
        k_hat = [float(row["k_hat"]) for row in own]
        assert k_hat == pytest.approx(split.importance.k_hat.tolist(), rel=1e-5)


def test_inference_data_holds_every_estimate_under_its_name():
    pytest.importorskip("xarray", reason="needs ArviZ: pip install 'bayesvae[arviz]'")
    _, _, result = whole()
    found = result.to_inference_data()
    assert list(found.groups()) == ["train", "unseen"]
    for name, split in result.splits.items():
        group = found[name]
        assert group.sizes == {"datum": len(split.guide.value), "steps": 2, "family": 2}
        pairs = {
            "log_evidence": split.log_evidence,
            "guide_elbo": split.guide,
            "reverse": split.annealed.upper,
        }
        for variable, estimate in pairs.items():
            assert group[variable].values.tolist() == estimate.value.tolist()
            assert group[f"{variable}_stderr"].values.tolist() == estimate.stderr.tolist()
            assert group[variable].attrs == {"units": "nats", "bound": estimate.bound}
        for family, bound in split.bounds.items():
            assert group.optimum.sel(family=family).values.tolist() == bound.value.tolist()
        for k, bound in split.semi.items():
            assert group.semi_amortized.sel(steps=k).values.tolist() == bound.value.tolist()
        gap = group.log_evidence - group.guide_elbo
        assert gap.values.tolist() == pytest.approx(split.inference_gap.tolist())
        assert group.attrs == {"own_family": "Normal", "given": ""}


def test_without_arviz_the_error_says_what_to_install(monkeypatch):
    _, _, result = whole()
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"needs ArviZ.*pip install 'bayesvae\[arviz\]'"):
        result.to_inference_data()


# Families' ascents ------------------------------------------------------------------------------


def test_a_family_gets_the_patience_that_it_asks_for_and_no_less_than_the_ascent_has():
    def patience(family, ascent):
        return ascent.patient_with(family).patience

    assert patience(families.Normal(2), Ascent()) == 1
    assert patience(families.Flow(2), Ascent()) == families.Flow.patience >= 3
    assert patience(families.Flow(2), Ascent(patience=50)) == 50
    assert patience(object(), Ascent(patience=2)) == 2


# Pairs of every making --------------------------------------------------------------------------


def numbers(size):
    """Counts and real numbers side by side."""
    counts = torch.poisson(torch.full((size,), 1.5))
    return torch.stack([counts, 0.7 + torch.randn(size)], -1)


def evidence(x, centre):
    """log p(x | centre) of the pair below."""
    counts = dist.GammaPoisson(2.0, 1.5).log_prob(x[:, 0])
    return counts + dist.Normal(centre, math.hypot(0.8, 0.5)).log_prob(x[:, 1])


def counts_and_numbers(reads=False):
    """A pair with two local latents, one a Gamma, and a shared one, whose guide is exact."""

    def model(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.5))
            z = pyro.sample("z", dist.Normal(centre, 0.8))
            pyro.sample("count", dist.Poisson(rate), obs=x[:, 0])
            pyro.sample("number", dist.Normal(z, 0.5), obs=x[:, 1])

    def guide(x):
        loc = x[:16, 1].mean() if reads else torch.tensor(0.4)
        centre = pyro.sample("centre", dist.Normal(loc, 0.2))
        precision = 0.8**-2 + 0.5**-2
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(2.0 + x[:, 0], 2.5))
            mean = (centre / 0.8**2 + x[:, 1] / 0.5**2) / precision
            pyro.sample("z", dist.Normal(mean, precision**-0.5))

    return model, guide


def test_two_latents_one_a_gamma_and_a_shared_one_go_through_the_whole_report(tmp_path):
    x = numbers(25)
    options = {"semi": Semi((1, 5)), "annealing": QUICK, "training_seconds": 5.0}
    result = quiet(Pair(*counts_and_numbers()), x, particles=1000, compile=False, **options)
    split, table = result.splits["train"], str(result)
    truth = evidence(x, 0.4)
    torch.testing.assert_close(split.guide.value, truth, rtol=0, atol=1e-8)  # an exact guide
    for estimate in (split.importance, split.annealed.lower):
        mean, error = mean_and_error(estimate.value - truth)
        assert abs(mean) < 4 * error + 1e-8
    # log rate is no normal: the families fall short of the guide, by little.
    missed = mean_and_error(truth - split.bounds["MultivariateNormal"].value)[0]
    assert 0.005 < missed < 0.1
    assert result.given == "given shared latents ['centre'] at the mean of their guide"
    assert split.own is None
    assert split.semi == {}
    assert "No steps were taken from the guide: it is a member of none" in table
    assert split.posteriors.latents == ("rate", "z")
    assert result.break_even()[0] in split.bounds
    result.to_csv(tmp_path / "gaps.csv")
    assert len((tmp_path / "gaps.csv").read_text().splitlines()) == 26
    assert isinstance(result.figure(), Figure)
    pytest.importorskip("xarray", reason="needs ArviZ: pip install 'bayesvae[arviz]'")
    assert result.to_inference_data().train.attrs["given"] == result.given


def test_a_pair_from_the_tutorial_goes_through_the_whole_report(tmp_path):
    tutorial, model = Tutorial(), rotated(scale=0.7)
    with torch.no_grad():
        tutorial.decoder.weight.copy_(model.weight)
        tutorial.decoder.bias.copy_(model.loc)
    x, steps = drawn(model, 20), (0, 5, 60)
    options = {"semi": Semi(steps, particles=16), "annealing": QUICK, "training_seconds": 5.0}
    pair = Pair(tutorial.model, tutorial.guide)
    result = quiet(pair, x, particles=1000, compile=False, **options)
    split = result.splits["train"]
    closed = [mean_and_error(split.gained(k))[0] for k in steps]
    assert closed == sorted(closed)
    assert closed[-1] > 0.8 * mean_and_error(split.amortization_gap)[0]
    mean, error = mean_and_error(split.annealed.lower.value - model.log_evidence(x))
    assert abs(mean) < 4 * error
    assert isinstance(result.figure(), Figure)
    result.to_csv(tmp_path / "gaps.csv")
    assert "left by 60 steps" in str(result)


def test_latents_without_a_density_get_a_reason_for_each_thing_left_out():
    def model(x):
        with pyro.plate("data", len(x)):
            which = pyro.sample("which", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(which, 1.0), obs=x)

    class Guide(nn.Module):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("which", dist.Bernoulli(0.4))

    result = quiet(Pair(model, Guide()), torch.randn(9), semi=Semi((1,)), annealing=QUICK)
    for words in ("No families were fitted: ", "Nothing was annealed: ", "No steps were taken"):
        assert words in str(result)
    assert result.splits["train"].annealed is None
