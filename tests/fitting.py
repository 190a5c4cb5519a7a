"""What the tests of `fit` share."""

import csv
from functools import partial

import pyro.distributions as dist
import torch
from linear_gaussian import learnable, state_of
from torch.optim import SGD, Adam

from bayesvae import data, fit

EXACT = {"rtol": 1e-10, "atol": 1e-10}
quiet = partial(fit, progress=False)


def trained(x, seed=0, **settings):
    """A fresh pair after the same start: state at the end and history."""
    torch.manual_seed(seed)
    pair = learnable()
    settings = {"epochs": 3, "batch_size": 8, "optimizer": partial(Adam, lr=1e-2), **settings}
    torch.manual_seed(seed)
    history = quiet(pair, x, **settings)
    return state_of(pair), history


def halves(pair):
    """The modules of the model and of the guide."""
    return pair.model_part_0, pair.guide_part_1


def table(path):
    """The lines of a CSV file by column."""
    return list(csv.DictReader(path.read_text().splitlines()))


def equal(first, second, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance)


def whole(x):
    """One batch of all data, in order: no random numbers go into it."""
    return data.Loader(x, len(x))


def bound_of(pair, x, kl_weight=1.0):
    """One-draw bound of log p(x), nats per datum, from the densities themselves."""
    model, guide = halves(pair)
    q = guide.posterior(x)
    z = q.rsample()
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1).log_prob(z)
    mean = z @ model.weight.T + model.loc
    likelihood = dist.Normal(mean, model.scale).to_event(1).log_prob(x)
    return (likelihood + kl_weight * (prior - q.log_prob(z))).mean()


def moves(pair, bound, seed=5):
    """What one step of gradient ascent of length one must add to each parameter."""
    torch.manual_seed(seed)
    named = dict(pair.named_parameters())
    gradients = torch.autograd.grad(bound(pair), list(named.values()), allow_unused=True)
    zipped = zip(named, gradients, named.values(), strict=True)
    return {name: torch.zeros_like(p) if g is None else g for name, g, p in zipped}


def moved(pair, x, seed=5, **settings):
    """What one step of `fit` with plain gradient ascent of length one adds to each parameter."""
    before = state_of(pair)
    settings = {"steps": 1, "optimizer": partial(SGD, lr=1.0), **settings}
    torch.manual_seed(seed)
    quiet(pair, whole(x), **settings)
    return {name: value - before[name] for name, value in pair.state_dict().items()}


class Counted(SGD):
    """Counts its steps and keeps the names of what each one moves."""

    def __init__(self, parameters, log, names, lr=1e-3):
        super().__init__(parameters, lr=lr)
        self.log, self.names = log, names

    def step(self, closure=None):
        held = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]
        super().step()
        self.log.append({self.names[id(p)] for p, old in held if not torch.equal(p, old)})


def counting(pair, log, **settings):
    names = {id(p): name for name, p in pair.named_parameters()}
    return partial(Counted, log=log, names=names, **settings)
