"""The hand-written contestant: the same bounds in plain torch, without a Pyro handler in sight.

With rows lambda = (m, r) of the encoder, s = softplus(r) + 1e-6 and noise e ~ N(0, I),

    z = m + s e,    log q(z | x) = -|e|^2 / 2 - sum log s + const,

or z = m + s (I + A) e, A strictly lower triangular, for a full covariance, at the same density.
The constant -d / 2 log 2 pi is left out of q and of all priors alike: it cancels.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.cases import Arrays, Case

Weights = dict[str, Tensor]


def mlp(w: Weights, network: str, x: Tensor) -> Tensor:
    """One hidden layer of rectified units, any leading dims."""
    hidden = F.linear(x, w[f"{network}.0.weight"], w[f"{network}.0.bias"]).relu()
    return F.linear(hidden, w[f"{network}.1.weight"], w[f"{network}.1.bias"])


def positive(raw: Tensor) -> Tensor:
    """Scales."""
    return F.softplus(raw) + 1e-6


def log_mixture(z: Tensor, log_weights: Tensor, rows: Tensor) -> Tensor:
    """log sum_c w_c N(z; m_c, s_c), ``(*)`` for z ``(*, d)``, without the constant."""
    loc, raw = rows.chunk(2, -1)
    scale = positive(raw)
    log_prob = -0.5 * (((z.unsqueeze(-2) - loc) / scale) ** 2).sum(-1) - scale.log().sum(-1)
    return (log_weights + log_prob).logsumexp(-1)


def log_prior(w: Weights, z: Tensor, case: Case) -> Tensor:
    """log p(z) summed over the batch, without the constant."""
    if case.prior == "mixture":
        return log_mixture(z, w["prior.logits"].log_softmax(-1), w["prior.rows"]).sum()
    if case.prior == "vamp":
        rows = mlp(w, "encoder", w["prior.raw_inputs"].sigmoid())
        even = z.new_full((), -math.log(case.components))
        return log_mixture(z, even, rows).sum()
    return -0.5 * (z * z).sum()


def posterior_rows(w: Weights, x: Tensor, index: Tensor | None, case: Case) -> Tensor:
    """lambda, ``(B, rows)``."""
    if case.table:
        return F.embedding(index, w["table"], sparse=True)
    return mlp(w, "encoder", x)


def draw(rows: Tensor, noise: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The draw z, and m and s."""
    d = case.latent
    loc, scale = rows[:, :d], positive(rows[:, d : 2 * d])
    if not case.full:
        return loc + scale * noise, loc, scale
    row, column = torch.tril_indices(d, d, -1, device=rows.device)
    below = rows.new_zeros(len(rows), d, d)
    below[:, row, column] = rows[:, 2 * d :]
    mixed = (below @ noise.unsqueeze(-1)).squeeze(-1)
    return loc + scale * (noise + mixed), loc, scale


def loss(w: Weights, x: Tensor, index: Tensor | None, noise: Tensor, case: Case) -> Tensor:
    """The negative ELBO in nats per datum.

    Args:
        w: parameters by name.
        x: data ``(B, D)``.
        index: positions ``(B,)``, for a table of variational parameters.
        noise: standard normal, ``(B, d)`` or ``(K, B, d)``.
        case: which prior, guide and estimate of the KL.

    Returns:
        ``()``.
    """
    z, loc, scale = draw(posterior_rows(w, x, index, case), noise, case)
    logits = mlp(w, "decoder", z)
    bits = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="sum")
    if case.analytic_kl:
        kl = case.particles * (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
    else:
        entropy = 0.5 * (noise * noise).sum() + case.particles * scale.log().sum()
        kl = -entropy - log_prior(w, z, case)
    return (bits + kl) / (case.particles * len(x))


def step_loss(w: Weights, x: Tensor, index: Tensor | None, case: Case) -> Tensor:
    """`loss` with noise of its own, as a training step draws it."""
    shape = (*case.noise[:-2], len(x), case.latent)
    return loss(w, x, index, torch.randn(shape, device=x.device), case)


def parameters(weights: Arrays, requires_grad: bool = True) -> Weights:
    """First weights as tensors."""
    return {k: torch.tensor(v, requires_grad=requires_grad) for k, v in weights.items()}


@torch.no_grad()
def evaluate(weights: Arrays, x: Tensor, index: Tensor | None, case: Case, seed: int = 0) -> float:
    """The ELBO in nats per datum that weights reach, on the same draws for all contestants.

    Args:
        weights: what a contestant ended with.
        x: data ``(M, B, D)``.
        index: positions ``(M, B)``.
        case: the model.
        seed: of the draws.
    """
    w, generator = parameters(weights, requires_grad=False), torch.Generator().manual_seed(seed)
    noise = partial(torch.randn, generator=generator)
    rows = [None] * len(x) if index is None else index
    values = [
        loss(w, a, i, noise((*case.noise[:-2], len(a), case.latent)), case)
        for a, i in zip(x, rows, strict=True)
    ]
    return -torch.stack(values).mean().item()
