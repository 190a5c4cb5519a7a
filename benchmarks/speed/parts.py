"""A case as Pyro programs: `bayesvae`'s pair, and the plain Pyro that a user would write."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import constraints

from bayesvae import Pair, families, guides, likelihoods, networks, pairs, priors
from benchmarks.speed.cases import Arrays, Case


class Parts(NamedTuple):
    """What both are made of."""

    prior: nn.Module
    decoder: networks.MLP
    guide: nn.Module
    named: dict[str, nn.Parameter]


def make_parts(case: Case, weights: Arrays) -> Parts:
    """The parts of a case, holding the first weights."""
    decoder = networks.MLP(case.latent, (case.hidden,), case.features)
    family = (families.MultivariateNormal if case.full else families.Normal)(case.latent)
    named = _layers("decoder", decoder)
    if case.table:
        guide = guides.PerDatapoint(case.table, family)
        named["table"] = guide.rows
    else:
        encoder = networks.MLP(case.features, (case.hidden,), family.size)
        guide = guides.Amortized(encoder, family)
        named |= _layers("encoder", encoder)
    prior = _prior(case, guide)
    named |= {f"prior.{k}": v for k, v in prior.named_parameters() if not k.startswith("encoder")}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(weights[name]))
    return Parts(prior, decoder, guide, named)


def _layers(name: str, network: networks.MLP) -> dict[str, nn.Parameter]:
    affine = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    return {f"{name}.{i}.{k}": v for i, a in enumerate(affine) for k, v in a.named_parameters()}


def _prior(case: Case, guide: nn.Module) -> nn.Module:
    if case.prior == "mixture":
        return priors.Mixture(case.latent, case.components)
    if case.prior == "vamp":
        blank = torch.full((case.components, case.features), 0.5)
        return priors.Vamp(guide, blank, case.components, constraints.unit_interval)
    return priors.StandardNormal(case.latent)


def make_pair(parts: Parts) -> Pair:
    """The pair of `bayesvae`."""
    return pairs.vae(parts.prior, likelihoods.Bernoulli(parts.decoder), parts.guide)


def make_elbo(case: Case, analytic_kl: bool = False) -> ELBO:
    """Pyro's loss for a case; the case itself may ask for the analytic KL."""
    kind = TraceMeanField_ELBO if case.analytic_kl or analytic_kl else Trace_ELBO
    several = case.particles > 1
    return kind(case.particles, max_plate_nesting=1, vectorize_particles=several)


class PlainPyro(nn.Module):
    """Model and guide as in Pyro's introduction to variational autoencoders."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.prior, self.decoder, self.guide_parts = parts.prior, parts.decoder, parts.guide

    def model(self, x: Tensor, index: Tensor | None = None) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        if any(True for _ in self.prior.parameters()):
            pyro.module("prior", self.prior)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor, index: Tensor | None = None) -> None:
        """q(z | x)."""
        pyro.module("guide", self.guide_parts)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.guide_parts.posterior(x, index))
