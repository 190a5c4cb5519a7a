"""Annealing bounds log p(x) from both sides, and meets where it has the time."""

import pytest
import torch
from linear_gaussian import drawn, guided, learnable, rotated, shifted
from torch.testing import assert_close

from bayesvae import calibrate, generate
from bayesvae.evidence import Annealing, ais, annealed_evidence, bracket, sandwich
from bayesvae.evidence.proposals import GUIDE, PRIOR

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("start", [GUIDE, PRIOR], ids=lambda start: start.name)
def test_the_evidence_of_a_linear_gaussian_pair_is_found(start):
    model = rotated()
    x = drawn(model, 40)
    settings = Annealing(temperatures=20, leapfrogs=4, pilot=10, start=start)
    found = annealed_evidence(shifted(model), x, settings, progress=False)
    apart = found.value - model.log_evidence(x)
    assert found.bound == "lower"
    assert apart.mean().abs() < 0.1
    assert (apart / found.stderr).mean().abs() < 4 / len(x) ** 0.5 + 0.3  # it is a lower bound


def test_a_pilot_pays():
    model = rotated()
    x = drawn(model, 40)
    short = []
    for pilot in (0, 20):
        settings = Annealing(temperatures=20, leapfrogs=4, start=PRIOR, pilot=pilot)
        found = annealed_evidence(shifted(model), x, settings, progress=False)
        short.append((model.log_evidence(x) - found.value).mean())
    assert short[0] > 3 * short[1].abs()


@pytest.mark.parametrize("start", [GUIDE, PRIOR], ids=lambda start: start.name)
def test_a_bracket_of_the_models_own_data_holds_the_truth(start):
    model = rotated()
    settings = Annealing(temperatures=5, leapfrogs=1, chains=2, pilot=10, start=start)
    found = bracket(shifted(model, widen=0.5), 400, (5,), settings, progress=False)
    exact = model.log_evidence(found.x)

    def standardised(values):
        return values.mean() / (values.std() / len(values) ** 0.5)

    assert found.lower.bound == "lower"
    assert found.upper.bound == "upper"
    assert standardised(found.lower.value - exact) < -2  # short of time, so clearly apart
    assert standardised(found.upper.value - exact) > 2
    longer = settings._replace(temperatures=60, leapfrogs=4, chains=4)
    closer = bracket(shifted(model, widen=0.5), 100, (5,), longer, progress=False)
    assert closer.width.mean().abs() < found.width.mean() / 5
    assert (closer.lower.value - model.log_evidence(closer.x)).mean().abs() < 0.05


def test_data_are_drawn_in_the_precision_of_the_pair():
    torch.set_default_dtype(torch.float32)  # an encoder would not take such data
    pair = learnable().double()
    quick = Annealing(temperatures=4, leapfrogs=1, chains=2, pilot=0)
    assert bracket(pair, 3, (5,), quick, progress=False).x.dtype == torch.float64
    assert calibrate(pair, 50, (5,), draws=99, progress=False).ranks.shape == (50, 4)
    assert generate.samples(pair, 3, (5,)).draw.dtype == torch.float64


def test_data_drawn_for_a_bracket_come_from_the_model():
    model = rotated()
    found = bracket(shifted(model), 4000, (5,), Annealing(1, 1, 1, pilot=0), progress=False)
    exact = model.weight @ model.weight.T + model.scale**2 * torch.eye(5)
    apart = (found.x - model.loc).T @ (found.x - model.loc) / 4000 - exact
    scale = exact.diagonal().sqrt()
    assert (apart / (scale[:, None] * scale)).abs().max() < 5 * (2 / 4000) ** 0.5


def test_real_data_are_sandwiched_without_the_claim_of_an_upper_bound():
    model = rotated()
    x = drawn(model, 100)
    settings = Annealing(temperatures=30, leapfrogs=3, chains=4, pilot=10)
    found = sandwich(shifted(model), x, settings, settle=50, progress=False)
    assert (found.lower.bound, found.upper.bound) == ("lower", "none")
    assert (found.lower.value - model.log_evidence(x)).mean().abs() < 0.05
    assert found.width.mean().abs() < 0.05
    assert "no bound" in str(found)
    assert "drawn from the model" not in str(found)


def test_one_temperature_from_the_guide_is_importance_sampling():
    """Then the weight is p(x, z) / q(z | x) of a draw of the guide, which is exact here."""
    model = rotated()
    pair = guided(model, model.posterior)
    x = drawn(model, 5)
    settings = Annealing(temperatures=1, leapfrogs=1, chains=3, pilot=0)
    found = annealed_evidence(pair, x, settings, progress=False)
    assert_close(found.value, model.log_evidence(x), **EXACT)
    assert_close(found.stderr, torch.zeros(5), rtol=0.0, atol=1e-6)


def test_the_sigmoid_schedule_is_symmetric_and_ends_at_one():
    b = ais.sigmoid_schedule(10)
    assert_close(b + b.flip(0), torch.ones(11), **EXACT)
    assert (b.diff() > 0).all()
    assert b.diff()[0] < b.diff()[5]


def test_a_schedule_goes_slowly_where_increments_vary_most():
    b = torch.linspace(0, 1, 101)
    path = ais.Path(b, torch.ones(101, 3))
    spread = 1 / (b + 0.01)
    new = path.resampled(spread, 50).inverse_temperatures
    assert new[0] == 0
    assert new[-1] == 1
    assert (new.diff() > 0).all()
    exact = 0.01 * (101 ** torch.linspace(0, 1, 51) - 1)
    assert_close(new, exact, rtol=0.0, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Annealing(temperatures=0), "temperatures >= 1"),
        (Annealing(chains=0), "chains >= 1"),
        (Annealing(pilot=-1), "pilot >= 0"),
        (Annealing(target=1.0), "target between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        annealed_evidence(shifted(rotated()), torch.zeros(2, 5), settings, progress=False)
