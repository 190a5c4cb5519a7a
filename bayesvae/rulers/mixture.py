"""A finite mixture of normals: the ruler for a discrete latent.

    p(k) = w_k,   x | k ~ N(m_k, S_k)
    p(x) = sum_k w_k N(x; m_k, S_k),   p(k | x) = w_k N(x; m_k, S_k) / p(x)

Sums over k are taken in log space.  "Pattern Recognition and Machine Learning", 9.2 (Bishop,
2006).
"""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from bayesvae.core.programs import DATA_PLATE
from bayesvae.rulers.components import NormalComponents, log_likelihoods
from bayesvae.rulers.ruler import Ruler


class NormalMixture(Ruler):
    """A mixture of C normals in D dimensions; the local latent ``k`` says which.

    Args:
        logits: log w up to a constant, ``(C,)``.
        locs: m, ``(C, D)``.
        scales: standard deviations ``(C, D)``, or lower Cholesky factors of S, ``(C, D, D)``.

    Raises:
        ValueError: for other shapes, or scales that are not positive.

    Example:
        >>> import torch
        >>> ruler = NormalMixture(torch.zeros(2), torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1))
        >>> ruler.posterior(torch.tensor([[9.0], [-9.0], [8.0]])).probs.argmax(-1)
        tensor([1, 0, 1])
    """

    site = "k"

    def __init__(self, logits: Tensor, locs: Tensor, scales: Tensor) -> None:
        super().__init__()
        if logits.shape != locs.shape[:1]:
            raise ValueError(
                f"NormalMixture needs logits (C,) and locs (C, D); got {tuple(logits.shape)} and "
                f"{tuple(locs.shape)}. Give each component one logit and one row."
            )
        self.logits = nn.Parameter(logits.clone())
        self.components = NormalComponents(locs, scales)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B, D)``; returns x, drawn if a handler asks."""
        with pyro.plate(DATA_PLATE, len(x)):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            return pyro.sample("x", self.components(k), obs=x)

    def _log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k) in every state, ``(B, C)``."""
        return self.logits.log_softmax(-1) + log_likelihoods(self.components, len(self.logits), x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, ``(B,)`` nats, for x ``(B, D)``."""
        return self._log_joint(x).logsumexp(-1)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> dist.Categorical:
        """p(k | x) exactly for x ``(B, D)``, batch shape ``(B,)``."""
        return dist.Categorical(logits=self._log_joint(x))
