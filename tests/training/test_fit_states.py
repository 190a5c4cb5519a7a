"""Validation, the states that a fit keeps, and its files."""

import math
import pickle
from functools import partial

import pytest
import torch
from fitting import equal, halves, quiet, table, trained
from linear_gaussian import drawn, learnable, rotated, state_of
from torch import nn
from torch.optim import SGD, Adam
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from bayesvae import data, families, guides
from bayesvae.core import files
from bayesvae.core.trace import log_terms
from bayesvae.objectives import elbo, linear_warmup
from bayesvae.pairs import ppca


@pytest.fixture
def x():
    return drawn(rotated(), 24)


@pytest.mark.parametrize("validation", ["tensor", "shuffling loader"])
def test_validation_leaves_training_as_it_is_without_it(x, validation):
    unseen = drawn(rotated(), 10, 3)
    if validation == "shuffling loader":
        unseen = DataLoader(TensorDataset(unseen), 4, shuffle=True)
    equal(trained(x)[0], trained(x, validation=unseen)[0])


class Spy(nn.Module):
    """Remembers in which mode it was run on how many data."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.training))
        return x


def test_validation_runs_in_evaluation_mode_and_training_in_training_mode(x):
    pair = learnable()
    _, guide = halves(pair)
    guide.network = nn.Sequential(spy := Spy(), guide.network)
    pair.eval()
    quiet(pair, x, epochs=2, batch_size=24, validation=drawn(rotated(), 7))
    # The pair is looked at in evaluation mode first; then come two steps.
    assert [mode for size, mode in spy.seen if size == 24][-2:] == [True, True]
    assert {mode for size, mode in spy.seen if size == 7} == {False}


@pytest.mark.parametrize("batch_size", [8, 1])
@pytest.mark.parametrize("frozen", [False, True])
def test_validation_of_rows_that_belong_to_other_data_is_refused(x, batch_size, frozen):
    # Positions 0, 1, ... of the validation data are not those of the training data.
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    guide.rows.requires_grad_(not frozen)
    with pytest.raises(ValueError, match="row"):
        quiet(
            ppca(rotated(), guide),
            x,
            epochs=1,
            batch_size=batch_size,
            validation=drawn(rotated(), 10, 3),
        )


def test_best_is_the_epoch_of_the_highest_validation_score_and_last_is_the_end(x, tmp_path):
    # Descent: the first epoch is the best.
    worse = partial(Adam, lr=3e-2, maximize=True)
    state, history = trained(x, optimizer=worse, epochs=4, validation=x, out=tmp_path)
    scores = [row.validation for row in history.epochs]
    assert scores == sorted(scores, reverse=True)
    assert history.best == history.epochs[0]
    equal(history.last_state, state)
    equal(files.load_state(tmp_path / "last.pt"), state)
    equal(files.load_state(tmp_path / "best.pt"), history.best_state)
    after_one, _ = trained(x, optimizer=worse, epochs=1)
    equal(history.best_state, after_one)
    assert not torch.equal(*(s["model_part_0.loc"] for s in (history.best_state, state)))


def test_without_validation_best_is_judged_by_the_objective(x):
    _, history = trained(x, optimizer=partial(Adam, lr=3e-2, maximize=True))
    assert history.best == history.epochs[0]
    assert history.best.score == history.best.objective


def test_objectives_of_a_warm_up_are_not_compared(x):
    # A small KL weight makes a high objective; that is no reason to keep those epochs.
    _, history = trained(
        x,
        epochs=5,
        objective=partial(elbo, particles=500, analytic_kl=True),
        optimizer=partial(SGD, lr=0.0),
        kl_weight=linear_warmup(9),
    )
    assert history.epochs[0].objective > history.epochs[-1].objective
    assert history.best in history.epochs[3:]


def test_files_hold_the_metrics_and_states_that_give_identical_log_weights(x, tmp_path):
    pair = learnable()
    history = quiet(pair, x, epochs=3, validation=x, out=tmp_path / "run")
    names = ["best.pt", "last.pt", "metrics.csv"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    rows = table(tmp_path / "run" / "metrics.csv")
    for row, epoch in zip(rows, history.epochs, strict=True):
        assert {name: float(text) for name, text in row.items()} == epoch._asdict()

    def log_weights(pair):
        torch.manual_seed(1)
        with torch.no_grad():
            return log_terms(pair.model, pair.guide, x, particles=4).local.log_weight

    other = learnable()
    assert not torch.equal(log_weights(other), log_weights(pair))
    other.load_state_dict(files.load_state(tmp_path / "run" / "last.pt"))
    assert torch.equal(log_weights(other), log_weights(pair))


def test_states_in_the_history_are_copies(x):
    _, history = trained(x, epochs=2)
    pair = learnable()
    history = quiet(pair, x, epochs=2)
    kept = {name: value.clone() for name, value in history.last_state.items()}
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.zero_()
    equal(history.last_state, kept)


class Interrupted(SGD):
    """Stands for a Ctrl-C after so many steps."""

    def __init__(self, parameters, steps):
        super().__init__(parameters, lr=1e-3)
        self.left = steps

    def step(self, closure=None):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().step()


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_an_interruption_leaves_the_state_that_training_had_reached(x, steps, tmp_path):
    """Catches work that is lost because the first epoch had not ended."""
    pair = learnable()
    with pytest.raises(KeyboardInterrupt):
        quiet(
            pair,
            x,
            batch_size=8,
            validation=drawn(rotated(), 4),
            optimizer=partial(Interrupted, steps=steps),
            out=tmp_path,
        )
    equal(files.load_state(tmp_path / "last.pt"), pair.state_dict())
    assert (tmp_path / "best.pt").is_file()
    assert [int(row["step"]) for row in table(tmp_path / "metrics.csv")][-1] == steps


EXPLODING = {"optimizer": partial(torch.optim.SGD, lr=1e200), "batch_size": 100}


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_state_that_is_not_finite_is_neither_best_nor_last_nor_written(tmp_path, epochs):
    """One batch an epoch, so that every step is the last of one: no loss sees what it left."""
    pair, x = learnable(), drawn(rotated(), 20)
    start = state_of(pair)
    with pytest.raises(FloatingPointError, match=r"must be finite") as raised:
        quiet(pair, x, elbo, epochs=epochs, out=tmp_path, **EXPLODING)
    history = raised.value.history
    for state in (state_of(pair), history.best_state, history.last_state):
        assert all(value.isfinite().all() for value in state.values())
    if not history.epochs:
        assert_close(state_of(pair), start, rtol=0.0, atol=0.0)
    for name in ("best.pt", "last.pt"):
        if (tmp_path / name).exists():
            assert all(v.isfinite().all() for v in files.load_state(tmp_path / name).values())


def test_what_was_reached_before_a_loss_broke_is_kept(tmp_path):
    pair, x = learnable(), drawn(rotated(), 20)
    weight = {"kl_weight": lambda step: math.nan if step == 5 else 1.0}
    with pytest.raises(FloatingPointError, match="at step 5") as raised:
        quiet(pair, x, elbo, epochs=9, batch_size=10, out=tmp_path, **weight)
    history = raised.value.history
    assert [epoch.epoch for epoch in history.epochs] == [1, 2]
    assert_close(files.load_state(tmp_path / "best.pt"), history.best_state, rtol=0.0, atol=0.0)


def test_a_validation_that_is_no_number_makes_no_state_the_best():
    """Catches NaN taken for no validation, where the objective judges."""
    pair, x = learnable(), drawn(rotated(), 40)
    spoilt = torch.cat([x, torch.full_like(x[:1], torch.finfo(x.dtype).max)])

    class Unseen(data.Loader):
        """Sound data at first, then some of which no number comes out."""

        times = 0

        def __iter__(self):
            Unseen.times += 1
            yield from data.Loader(spoilt if Unseen.times > 2 else x, 50)

    history = quiet(pair, x, elbo, epochs=4, validation=Unseen(x, 50))
    assert [math.isfinite(epoch.validation) for epoch in history.epochs].count(True) in (1, 2)
    assert math.isfinite(history.best.validation)
    assert not any(math.isnan(epoch.score) for epoch in history.epochs)


def test_infinities_that_a_module_holds_on_purpose_are_no_fault():
    pair, x = learnable(), drawn(rotated(), 20)
    pair.model_part_0.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert len(quiet(pair, x, elbo, epochs=2).epochs) == 2


@pytest.mark.parametrize("name", ["metrics.csv", "last.pt", "best.pt"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_an_interruption_while_an_epoch_is_written_loses_none_of_its_files(
    name, epoch, tmp_path, monkeypatch
):
    """Catches an epoch that is closed in memory and not on disk."""
    write, times = files.write_aside, []

    def pressed(path, how):
        if path.name == name:
            times.append(path)
            if len(times) == epoch:
                raise KeyboardInterrupt
        write(path, how)

    monkeypatch.setattr(files, "write_aside", pressed)
    pair, x = learnable(), drawn(rotated(), 20)
    with pytest.raises(KeyboardInterrupt):
        quiet(pair, x, elbo, epochs=5, batch_size=20, out=tmp_path)
    assert len(table(tmp_path / "metrics.csv")) == epoch
    assert_close(files.load_state(tmp_path / "last.pt"), state_of(pair), rtol=0.0, atol=0.0)
    assert (tmp_path / "best.pt").exists()


def test_the_error_of_a_training_that_broke_reaches_another_process():
    pair, x = learnable(), drawn(rotated(), 20)
    with pytest.raises(FloatingPointError) as raised:
        quiet(pair, x, elbo, epochs=2, **EXPLODING)
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value)
    assert [e.step for e in again.history.epochs] == [e.step for e in raised.value.history.epochs]
