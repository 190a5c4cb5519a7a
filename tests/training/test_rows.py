"""Turns between guide and model, and rows that move with their own datum alone."""

import math
from functools import partial

import pytest
import torch
from fitting import EXACT, bound_of, counting, equal, moved, quiet
from linear_gaussian import drawn, kl_to_posterior, learnable, rotated, state_of
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from bayesvae import families, guides
from bayesvae.objectives import elbo
from bayesvae.pairs import ppca
from bayesvae.training import RowAdam


@pytest.fixture
def x():
    return drawn(rotated(), 24)


# Turns ------------------------------------------------------------------------------------------


def test_inner_steps_move_the_guide_alone_and_outer_ones_the_model_alone(x):
    pair, log = learnable(), []
    parts = {n: {name for name, _ in p.named_parameters(n)} for n, p in pair.named_children()}
    model, guide = parts["model_part_0"], parts["guide_part_1"]
    quiet(pair, x, steps=2, inner_steps=3, optimizer=counting(pair, log))
    assert log == [guide, guide, guide, model] * 2


def test_turns_climb_the_same_bound_one_after_the_other(x):
    pair = learnable()
    start = state_of(pair)
    changes = moved(pair, x, inner_steps=1, seed=5)
    # By hand: the guide's step first, the model's from where the guide then is.
    pair.load_state_dict(start)
    torch.manual_seed(5)
    for part in ("guide_part_1", "model_part_0"):
        own = [p for name, p in pair.named_parameters() if name.startswith(part)]
        gradients = torch.autograd.grad(bound_of(pair, x), own)
        with torch.no_grad():
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.add_(gradient)
    equal(changes, {n: v - start[n] for n, v in pair.state_dict().items()}, **EXACT)


# Rows of single data ----------------------------------------------------------------------------


def batches_of(x, *positions):
    return DataLoader(TensorDataset(x), batch_sampler=list(positions), generator=torch.Generator())


def rows_after(x, steps, *positions, **settings):
    torch.manual_seed(0)
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    quiet(ppca(rotated(), guide), batches_of(x, *positions), steps=steps, **settings)
    return guide.rows.detach()


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_rows_move_only_while_their_datum_is_in_the_batch_whatever_the_momentum(x, clip_norm):
    settings = {"clip_norm": clip_norm}
    order = [0, 1], [2, 3], [3, 2], [2, 3]
    first, last = (rows_after(x, steps, *order, **settings) for steps in (1, 4))
    assert torch.equal(last[4:], torch.zeros_like(last[4:]))
    assert (first[:2] != 0).all()
    assert torch.equal(first[:2], last[:2])
    assert (last[2:4] != 0).all()


def test_rows_stay_in_the_models_turn(x):
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    pair, log = ppca(rotated(), guide), []
    rows = counting(pair, log, lr=0.1)
    quiet(pair, x, steps=2, inner_steps=2, row_optimizer=rows)
    assert log == [{"guide_part_1.rows"}, {"guide_part_1.rows"}, set()] * 2


def test_a_dense_adam_would_have_moved_a_row_without_a_gradient():
    table = nn.Parameter(torch.zeros(2, 3))
    optimizer = Adam([table], lr=0.1)
    for row in (0, 1):
        optimizer.zero_grad()
        table[row].sum().backward()
        optimizer.step()
        if row == 0:
            before = table[0].detach().clone()
    assert not torch.equal(table[0], before)


def embedded(rows, at, gradient):
    """A sparse gradient for a table of so many rows."""
    shape = rows, gradient.shape[1]
    return torch.sparse_coo_tensor(torch.tensor([at]), gradient, shape, check_invariants=True)


def test_row_adam_is_adam_for_rows_in_every_batch_and_whenever_another_row_was_seen():
    ours, theirs = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    settings = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-6}
    rows = RowAdam([ours], **settings)
    # One dense Adam a row, stepped when its row is seen, is what RowAdam has to be.
    each = [nn.Parameter(row.clone()) for row in theirs.detach()]
    dense = [Adam([row], **settings) for row in each]
    for step in range(25):
        at = [0, 1] if step < 10 else [0, 2, 1 + 2 * (step % 2)]
        at = sorted(set(at))
        gradient = torch.randn(len(at), 3)
        ours.grad = embedded(4, at, gradient)
        rows.step()
        for row, value in zip(at, gradient, strict=True):
            each[row].grad = value
            dense[row].step()
    torch.testing.assert_close(ours.detach(), torch.stack(each).detach(), **EXACT)


def test_row_adam_adds_up_a_row_that_is_in_the_batch_twice():
    twice, once = (nn.Parameter(torch.zeros(3, 2)) for _ in range(2))
    gradient = torch.tensor([[1.0, 2.0], [0.5, -3.0]])
    twice.grad = embedded(3, [1, 1], gradient)
    once.grad = embedded(3, [1], gradient.sum(0, keepdim=True))
    for table in (twice, once):
        RowAdam([table]).step()
    torch.testing.assert_close(twice, once, rtol=0, atol=0)


def test_row_adam_refuses_dense_gradients():
    table = nn.Parameter(torch.zeros(3, 2))
    table.grad = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"sparse gradients; got a dense one of shape \(3, 2\)"):
        RowAdam([table]).step()


def test_rows_climb_to_the_optimum_of_their_family(x):
    model = rotated()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    steps = 600
    quiet(
        ppca(model, guide),
        x,
        partial(elbo, analytic_kl=True, particles=4),
        steps=steps,
        batch_size=12,
        row_optimizer=partial(RowAdam, lr=0.1),
        scheduler=lambda o: LambdaLR(o, lambda step: (1 - step / steps) ** 2),
    )
    excess = kl_to_posterior(model, guide.posterior(x, torch.arange(len(x))), x)
    excess = excess - model.diagonal_gap()
    assert (excess > -1e-10).all()
    assert excess.mean() < 0.01


@pytest.mark.parametrize("before", [False, True])
def test_the_sparse_flag_is_put_back_also_after_an_error(x, before):
    guide = guides.PerDatapoint(len(x), families.Normal(2))
    guide.sparse = before
    quiet(ppca(rotated(), guide), x, steps=1)
    assert guide.sparse is before
    with pytest.raises(FloatingPointError):
        quiet(ppca(rotated(), guide), x, elbo, kl_weight=math.nan)
    assert guide.sparse is before
