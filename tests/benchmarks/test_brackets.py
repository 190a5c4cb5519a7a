"""The benchmark of brackets: what it says of budgets follows from what was measured."""

import doctest
import importlib
import math
from pathlib import Path

import pytest
import torch
from linear_gaussian import rotated, shifted

from bayesvae import Annealing, plots

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.brackets")


def rung(module, start, temperatures, lower, width=0.5):
    upper = (lower + width, 0.3)
    return module.Rung(start, temperatures, 9.0, 3.0, (lower, 0.3), upper, (width, 0.1), 0.02)


@pytest.fixture
def rungs(module):
    """The prior reaches the guide's first bound between its second and third budget."""
    guide = [rung(module, "guide", t, b) for t, b in ((10, -91.0), (100, -90.0))]
    prior = [rung(module, "prior", t, b) for t, b in ((10, -99.0), (100, -92.0), (1000, -90.5))]
    return [*guide, *prior]


SAMPLE = {"particles": 5000, "log_evidence": -92.0, "log_evidence_stderr": 0.4}
SAMPLE |= {"untrusted": 0.5, "busy": 7.0}


def test_the_budget_for_a_bound_is_found_between_rungs_in_the_logarithm(module, rungs):
    prior = rungs[2:]
    assert module.needed(-99.0, prior) == 10
    assert module.needed(-100.0, prior) == 10
    assert module.needed(-92.0, prior) == pytest.approx(100)
    assert module.needed(-91.25, prior) == pytest.approx(10**2.5)
    assert module.needed(-90.0, prior) == math.inf
    assert module.needed(-92.0, prior[::-1]) == pytest.approx(100), "in whatever order"


def test_the_table_has_a_line_for_each_budget_and_says_what_the_prior_needs(module, rungs):
    lines = module.table(rungs, SAMPLE).splitlines()
    assert len(lines) == 7
    assert lines[1].split()[-1] == str(round(100 * 10 ** (1 / 1.5)))
    assert lines[2].endswith("more than 1000")
    assert lines[3].split()[:2] == ["prior", "10"]
    assert "5,000 draws of the guide: -92.000 +- 0.400, k-hat above 0.7 for 50 %" in lines[6]


def test_curves_are_of_each_start_and_of_those_alone_that_were_run(module, rungs):
    curves = module.curves(rungs)
    assert list(curves) == ["guide", "prior"]
    assert curves["prior"].budget == [10, 100, 1000]
    assert curves["guide"].lower == [-91.0, -90.0]
    assert curves["guide"].lower_stderr == [0.02, 0.02]
    assert list(module.curves(rungs[:2])) == ["guide"]
    labels = plots.bracket_widths(curves).axes[1].get_legend_handles_labels()[1]
    assert [label.split(":")[0] for label in labels] == ["guide", "prior"]


def climbed(module, monkeypatch, event=(5,)):
    """A climb over a small pair instead of one of images."""
    pair, wide = shifted(rotated()), module.bracket
    monkeypatch.setattr(
        module, "bracket", lambda p, n, _, path, **how: wide(p, n, event, path, **how)
    )
    budgets = {"guide": (2, 8), "prior": (2,)}
    return list(module.climb(pair, budgets, Annealing(leapfrogs=2, chains=3, pilot=0), 6, seed=1))


def test_short_paths_come_first_and_all_bracket_the_same_data(module, monkeypatch):
    found = climbed(module, monkeypatch)
    order = [(rung.start, rung.temperatures) for rung, _ in found]
    assert order == [("guide", 2), ("prior", 2), ("guide", 8)]
    assert all(torch.equal(x, found[0][1]) for _, x in found)
    for rung, _ in found:
        assert rung.width[0] == pytest.approx(rung.upper[0] - rung.lower[0])
        assert rung.chains > 0


def test_different_data_for_two_budgets_are_an_error(module, monkeypatch):
    monkeypatch.setattr(module.torch, "manual_seed", lambda seed: None)
    with pytest.raises(RuntimeError, match="same images"):
        climbed(module, monkeypatch)


def test_a_pair_that_was_trained_before_is_read_back(module, tmp_path):
    x, kept = torch.rand(256, 1, 28, 28, dtype=torch.float32), tmp_path / "pair.pt"
    torch.set_default_dtype(torch.float32)
    first = module.trained(x, 1, 0, kept)
    before = kept.read_bytes()
    again = module.trained(x, 1, 0, kept)
    assert kept.read_bytes() == before
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_examples_in_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
