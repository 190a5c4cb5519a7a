"""What a discrete latent chooses between: ``components(k)`` is the distribution p(x | k).

Any module will do whose call takes states k ``(*)``, whole numbers 0 ... C - 1, and returns a
distribution with batch shape ``(*)``.
"""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.families import MultivariateNormal, Normal


class NormalComponents(nn.Module):
    """p(x | k) = N(m_k, S_k).

    Args:
        locs: m, ``(C, D)``.
        scales: standard deviations ``(C, D)``, or lower Cholesky factors of S, ``(C, D, D)``.

    Raises:
        ValueError: for other shapes, or scales that are not positive.

    Example:
        >>> components = NormalComponents(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
        >>> components(torch.tensor([0, 2, 2, 1])).batch_shape
        torch.Size([4])
    """

    def __init__(self, locs: Tensor, scales: Tensor) -> None:
        super().__init__()
        full = scales.dim() == 3
        deviations = scales.diagonal(dim1=-2, dim2=-1) if full else scales
        lower = not full or torch.equal(scales, scales.tril())
        if locs.dim() != 2 or deviations.shape != locs.shape or not (deviations > 0).all():
            raise ValueError(
                "NormalComponents needs locs (C, D) and positive scales (C, D), or Cholesky "
                f"factors (C, D, D); got {tuple(locs.shape)} and {tuple(scales.shape)} from "
                f"{deviations.min().item():.3g}."
            )
        if not lower:
            raise ValueError(
                "Cholesky factors are lower triangular; got entries above the diagonal. Use "
                "torch.linalg.cholesky(covariances)."
            )
        self.family = (MultivariateNormal if full else Normal)(locs.shape[1])
        start = (
            dist.MultivariateNormal(locs, scale_tril=scales)
            if full
            else dist.Normal(locs, scales).to_event(1)
        )
        self.rows = nn.Parameter(self.family.rows(start))

    def forward(self, k: Tensor) -> Distribution:
        """p(x | k) for states ``(*)``: batch shape ``(*)``, event shape ``(D,)``."""
        return self.family(self.rows[k])


class CategoricalComponents(nn.Module):
    """p(x | k) over levels 0 ... V - 1.

    Args:
        logits: of the levels in each state, up to a constant, ``(C, V)``.

    Raises:
        ValueError: for another shape.

    Example:
        >>> CategoricalComponents(torch.zeros(3, 5))(torch.tensor([0, 2])).probs.shape
        torch.Size([2, 5])
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        if logits.dim() != 2:
            raise ValueError(
                f"CategoricalComponents needs logits (C, V); got {tuple(logits.shape)}. Give "
                "each state a row."
            )
        self.logits = nn.Parameter(logits.clone())

    def forward(self, k: Tensor) -> Distribution:
        """p(x | k) for states ``(*)``: batch shape ``(*)``, event shape ``()``."""
        return dist.Categorical(logits=self.logits[k])


def log_likelihoods(components: nn.Module, states: int, x: Tensor) -> Tensor:
    """log p(x | k) in every state k.

    Args:
        components: the components.
        states: C, how many there are.
        x: ``(*, *event)``.

    Returns:
        ``(*, C)``, nats.
    """
    each = components(torch.arange(states, device=x.device))
    return each.log_prob(x.unsqueeze(-1 - each.event_dim))
