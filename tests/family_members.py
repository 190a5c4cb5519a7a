"""Every family, members of it as wide as they are asked to be, and grids around them."""

import pyro.distributions as dist
import torch

from bayesvae import families

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def diagonal(scale):
    return dist.Normal(torch.randn_like(scale), scale).to_event(1)


def full(scale):
    tril = torch.randn(*scale.shape, scale.shape[-1]).tril(-1) * scale.min()
    return dist.MultivariateNormal(torch.randn_like(scale), scale_tril=tril + scale.diag_embed())


def low_rank(scale):
    factor = scale.unsqueeze(-1) * torch.randn(*scale.shape, 4)
    return dist.LowRankMultivariateNormal(torch.randn_like(scale), factor, scale.square())


def of_rows(name):
    """Members of families that have distributions of their own, about as wide as a scale."""

    def member(scale):
        family = FAMILIES[name](scale.shape[-1])
        rows = family.rows(diagonal(scale))
        return family(rows + torch.randn_like(rows) * rows.abs().clamp_max(0.3))

    return member


FAMILIES = {
    "Normal": families.Normal,
    "MultivariateNormal": families.MultivariateNormal,
    "LowRankNormal": families.LowRankNormal,
    "NormalMixture": families.NormalMixture,
    "Flow": families.Flow,
}


MEMBERS = {
    "Normal": diagonal,
    "MultivariateNormal": full,
    "LowRankNormal": low_rank,
    "NormalMixture": of_rows("NormalMixture"),
    "Flow": of_rows("Flow"),
}


def odd(name, dim):
    """A family with a row that is far from a normal, where the family can be."""
    family = FAMILIES[name](dim)
    rows = family.rows(diagonal(torch.ones(dim)))
    rows = rows + 0.4 * torch.randn_like(rows)
    if name == "Flow":
        rows[families.MultivariateNormal(dim).size :] *= 4
    return family, rows


def grid(q):
    """Points ``(n, d)`` around a distribution without batch dims, and the volume of each."""
    nodes = 8001 if q.event_shape == (1,) else 501
    lines = q.mean + q.stddev * torch.linspace(-10, 10, nodes).unsqueeze(-1)
    points = torch.meshgrid(*lines.detach().T, indexing="ij")
    return torch.stack(points, -1).flatten(0, -2), (20 / (nodes - 1) * q.stddev).prod().detach()
