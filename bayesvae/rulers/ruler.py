"""What a ruler offers: a generative program whose log p(x_n) and p(z_n | x_n) are known exactly.

With the exact posterior for a guide the log-weight is the same number for every draw,

    log p(x, z) - log p(z | x) = log p(x),

so an estimator that is right about an exact pair has no noise there, and any other guide's gap to
the evidence is known: log p(x) - ELBO = KL(q || p(z | x)).
"""

from abc import ABC, abstractmethod

import pyro
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.pair import Pair
from bayesvae.core.programs import DATA_PLATE, Program


class Ruler(nn.Module, ABC):
    """A generative program over one local latent, with its closed forms.

    Its parameters can be trained like any others; ``ruler.requires_grad_(False)`` holds them.

    Attributes:
        site: the name of the latent.
    """

    site: str = "z"

    @abstractmethod
    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B, *event)``; returns x, drawn if a handler asks."""

    @abstractmethod
    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, ``(B,)`` nats, for x ``(B, *event)``."""

    @abstractmethod
    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """p(z | x) exactly for x ``(B, *event)``, batch shape ``(B,)``."""

    def exact_guide(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """The guide that samples the latent from the exact posterior."""
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, self.posterior(x, index))

    def pair(self, guide: Program | None = None) -> Pair:
        """The program with a guide.

        Args:
            guide: program that samples the latent; None takes the exact posterior.
        """
        return Pair(self, self.exact_guide if guide is None else guide)
