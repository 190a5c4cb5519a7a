"""Training and evaluation give the same numbers compiled as written (float64, same seed)."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import CATALOG, SIZE
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from bayesvae import Pair, compare, fit, log_evidence, objectives
from bayesvae.evidence import elbo_per_datum
from bayesvae.optima import Ascent
from bayesvae.training import RowAdam

SETTINGS = {
    "plain": {},
    "warm-up, clipping, schedule": {
        "kl_weight": objectives.linear_warmup(7),
        "clip_norm": 0.5,
        "scheduler": lambda optimizer: ExponentialLR(optimizer, 0.9),
    },
    "turns": {"inner_steps": 2},
}


def data_of(case):
    """A data set of `SIZE` rows like the batch of a case."""
    return case.x[torch.arange(SIZE) % len(case.x)] * 1.0


def trained(name, compile, **options):
    torch.manual_seed(0)
    pyro.clear_param_store()
    case = CATALOG[name]()
    x = data_of(case)
    torch.manual_seed(1)
    options = {"optimizer": partial(Adam, lr=1e-2)} | options
    history = fit(
        case.pair,
        x,
        epochs=6,
        batch_size=5,
        validation=None if "PerDatapoint" in name or "subsampling" in name else x,
        compile=compile,
        progress=False,
        **options,
    )
    return case.pair, history


def same(name, **options):
    """Whether compiled training ends where training as written does."""
    written, compiled = (trained(name, c, **options) for c in (False, True))
    assert compiled[1].compiled
    assert not written[1].compiled
    assert compiled[1].compiling > 0 == written[1].compiling
    for ours, theirs in zip(compiled[1].epochs, written[1].epochs, strict=True):
        assert math.isclose(ours.objective, theirs.objective, rel_tol=1e-9)
        assert ours.validation == pytest.approx(theirs.validation, rel=1e-9, nan_ok=True)
    for ours, theirs in zip(compiled[0].parameters(), written[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_compiled_training_with_everything_that_changes_ends_where_it_does_as_written():
    same("likelihood Bernoulli", **SETTINGS["warm-up, clipping, schedule"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("prior Vamp", "turns"),
        ("guide PerDatapoint diagonal", "plain"),
        ("guide PerDatapoint diagonal", "warm-up, clipping, schedule"),
    ],
)
def test_compiled_training_ends_where_it_does_as_written(name, setting):
    options = SETTINGS[setting]
    if "PerDatapoint" in name:
        options = options | {"row_optimizer": partial(RowAdam, lr=0.05)}
    same(name, **options)


@pytest.mark.slow
def test_a_subsampling_pair_trains_compiled():
    same("by hand, subsampling plate")


class Bad(nn.Module):
    """A pair whose likelihood breaks at data above 5."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))
        self.encoder = nn.Linear(2, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            safe = torch.where(x > 5, torch.inf, 0.0)
            pyro.sample("x", dist.Normal(z + self.loc + safe, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_a_loss_that_is_not_finite_stops_a_compiled_fit_before_it_reaches_the_parameters():
    bad = Bad()
    x = torch.randn(60, 2)
    x[-1] = 9.0
    pair = Pair(bad.model, bad.guide)
    loader = torch.utils.data.DataLoader(x, batch_size=5)
    with pytest.raises(FloatingPointError, match="step 11"):
        fit(pair, loader, compile=True, epochs=2, progress=False)
    assert all(torch.isfinite(p).all() for p in pair.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guide Amortized full", "by hand, Pyro's tutorial"])
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_evaluators_give_the_same_numbers_compiled(name):
    results = []
    for compile in (False, True):
        torch.manual_seed(0)
        pyro.clear_param_store()
        case = CATALOG[name]()
        x = case.x.repeat(4, *[1] * (case.x.dim() - 1))
        torch.manual_seed(1)
        options = {"compile": compile, "memory": 2**18}
        evidence = log_evidence(case.pair, x, 3000, **options)
        bound = elbo_per_datum(case.pair, x, 3000, **options)
        ascent = Ascent(stages=1, windows=2, window=20)
        gaps = compare(
            case.pair,
            x,
            particles=50,
            evidence_particles=100,
            ascent=ascent,
            batch_size=6,
            compile=compile,
            progress=False,
        ).splits["train"]
        values = [evidence.value, bound.value, gaps.guide.value, gaps.log_evidence.value]
        results.append(values + [each.value for each in gaps.bounds.values()])
    assert len(results[0]) == 6
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
