"""Linear-Gaussian pairs in which every answer is known: what the other tests measure with."""

import math

import pyro
import torch
from pyro import distributions as dist
from pyro.ops.stats import effective_sample_size
from torch import nn

from bayesvae import families, guides, networks
from bayesvae.pairs import PPCA, ppca


def rotated(features=5, dim=2, scale=0.6, seed=0):
    """A PPCA whose posterior is correlated: orthogonal columns of unequal length, turned."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(features, dim, generator=generator)).Q
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    weight = axes * torch.linspace(1.5, 0.5, dim) @ turn
    return PPCA(weight, torch.randn(features, generator=generator), scale)


def orthogonal(features=5, dim=2, scale=0.6):
    """A PPCA whose posterior is diagonal."""
    weight = torch.linalg.qr(torch.randn(features, dim)).Q * torch.linspace(2, 1, dim)
    return PPCA(weight, torch.randn(features), scale)


def drawn(model, size, seed=1):
    """Data ``(size, D)`` from a PPCA."""
    generator = torch.Generator().manual_seed(seed)
    features, dim = model.weight.shape
    z = torch.randn(size, dim, generator=generator)
    noise = torch.randn(size, features, generator=generator)
    return (z @ model.weight.T + model.loc + model.scale * noise).detach()


def diagonal_optimum(model, x, shift=0.0, widen=1.0):
    """The best diagonal normal of each datum, or a normal beside it."""
    loc, scale = model.posterior(x).mean, model.precision.diagonal().rsqrt()
    return dist.Normal(loc + shift, (scale * widen).expand_as(loc)).to_event(1)


def guided(model, posterior):
    """The PPCA pair with the guide ``posterior(x) -> Distribution``."""

    def guide(x, index=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("z", posterior(x))

    return ppca(model, guide)


def shifted(model, shift=0.0, widen=1.0):
    """The PPCA pair whose guide is the best diagonal normal, shifted and widened."""
    return guided(model, lambda x: diagonal_optimum(model, x, shift, widen))


def kl_to_posterior(model, q, x):
    """KL(q || p(z | x)) in closed form, ``(B,)`` nats, for a normal q."""
    if not isinstance(q, torch.distributions.MultivariateNormal):
        q = dist.MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev))
    return torch.distributions.kl_divergence(q, model.posterior(x))


def learnable(features=5, dim=2, family=families.MultivariateNormal, hidden=()):
    """An untrained PPCA with an amortized guide; the affine one can be exact."""
    family = family(dim)
    network = networks.MLP(features, hidden, family.size, activation=torch.nn.Tanh)
    model = PPCA(torch.randn(features, dim), torch.zeros(features), 1.0)
    return ppca(model, guides.Amortized(network, family))


def state_of(pair):
    """A copy of everything that a pair holds."""
    return {name: value.detach().clone() for name, value in pair.state_dict().items()}


def same_state(pair, before):
    """Whether a pair is bit for bit what it was."""
    now = pair.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in before)


def z_scores(draws, mean):
    """Of the mean of ``(S, *)`` draws against the true mean, in standard errors."""
    return (draws.mean(0) - mean) / (draws.std(0) / len(draws) ** 0.5)


def encoder(inputs=4, dim=2, family=families.Normal):
    family = family(dim)
    return guides.Amortized(networks.MLP(inputs, (6,), family.size, nn.Tanh), family)


def covariance(q):
    if isinstance(q, torch.distributions.MultivariateNormal):
        return q.covariance_matrix
    return q.variance.diag_embed()


class SharedMean(nn.Module):
    """mean ~ N(0, 1), z_n ~ N(mean, a^2), x_n ~ N(z_n, b^2); the guide is exact given the mean."""

    a, b = 0.8, 0.5

    def __init__(self, mean):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))

    def model(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, self.a))
            pyro.sample("x", dist.Normal(z, self.b), obs=x)

    def guide(self, x):
        mean = pyro.sample("mean", dist.Normal(self.mean, 0.3))
        precision = self.a**-2 + self.b**-2
        with pyro.plate("data", len(x)):
            loc = (mean / self.a**2 + x / self.b**2) / precision
            pyro.sample("z", dist.Normal(loc, precision**-0.5))

    def log_evidence(self, x, mean):
        """log p(x_n | mean)."""
        return dist.Normal(mean, math.hypot(self.a, self.b)).log_prob(x)


def contents(pair):
    """Everything that an evaluation might touch, copied."""
    store = pyro.get_param_store()
    return (
        {name: value.clone() for name, value in pair.state_dict().items()},
        {name: (p.requires_grad, p.grad) for name, p in pair.named_parameters()},
        {name: module.training for name, module in pair.named_modules()},
        {name: store[name].detach().clone() for name in store},
        torch.is_grad_enabled(),
        torch.distributions.Distribution._validate_args,
    )


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        if isinstance(old, dict):
            assert old.keys() == new.keys()
            old, new = list(old.values()), list(new.values())
        for a, b in zip(old, new, strict=True) if isinstance(old, list) else [(old, new)]:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def counts(x, index=None):
    """rate ~ Gamma(2, 1.5), x ~ Poisson(rate): evidence and posterior are Gamma-Poisson's."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.5))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def rates(x, index=None):
    """A guide for `counts` that does not read them."""
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.LogNormal(0.0, 1.0))


def assert_moments(found, draws, mean, covariance):
    """Chains' draws ``(S, C, B, D)`` have these moments, each within 5 standard errors."""
    assert (found.r_hat < 1.05).all()
    assert (found.divergences == 0).all()
    assert (found.effective_sample_size > 100).all()
    centred = draws - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    for values, truth in ((draws, mean), (products, covariance)):
        size = effective_sample_size(values, chain_dim=1, sample_dim=0)
        error = values.flatten(0, 1).std(0) / size.sqrt()
        assert ((values.mean((0, 1)) - truth).abs() < 5 * error).all()
