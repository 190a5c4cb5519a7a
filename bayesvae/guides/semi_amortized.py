"""Between network and search: start at f_phi(x_n), then climb the datum's own bound for k steps.

A row far from its optimum has a slope of any size, so slopes longer than one are cut to one.
"""

from collections.abc import Callable
from functools import partial

import pyro
import torch
from pyro.poutine import block
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core import trace
from bayesvae.core.distributions import pathwise_mean, pyro_ready
from bayesvae.core.programs import DATA_PLATE, Program
from bayesvae.families import Family
from bayesvae.guides.amortized import Amortized


class SemiAmortized(nn.Module):
    """lambda_n = f_phi(x_n), then k steps uphill on the datum's own bound L(lambda_n).

    "Semi-Amortized Variational Autoencoders" (Kim et al., 2018); without differentiating through
    the steps, "Iterative refinement of the approximate posterior" (Hjelm et al., 2016).  The steps
    are taken as if trained: they follow noisy gradients of few draws, so k = 0 is exactly
    `Amortized`, and more steps help the average rather than every datum.

    Args:
        network: maps ``(B, *event)`` to rows ``(B, family.size)``.
        family: turns rows into distributions that can be drawn from reparameterised.
        model: the generative program, whose only local latent is ``site``.
        steps: k.
        rate: step size, in units of lambda for a gradient of one nat.
        particles: draws of a gradient; a mixture takes at least one of each component.
        through: whether gradients go through the steps. If not, the network is trained as though
            the steps were constants added to its output.
        site: name of the latent.

    Example:
        >>> from bayesvae import families, networks
        >>> from bayesvae.pairs import PPCA
        >>> model, family = PPCA(torch.eye(4)[:, :2], torch.zeros(4), 1.0), families.Normal(2)
        >>> guide = SemiAmortized(networks.MLP(4, (8,), family.size), family, model, steps=3)
        >>> guide.posterior(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        model: Program,
        steps: int = 5,
        *,
        rate: float = 0.1,
        particles: int = 4,
        through: bool = False,
        site: str = "z",
    ) -> None:
        super().__init__()
        if steps < 0 or particles < 1 or not rate > 0:
            raise ValueError(
                "SemiAmortized needs steps >= 0, particles >= 1 and rate > 0; got "
                f"{steps}, {particles} and {rate}."
            )
        self.start = Amortized(network, family, site)
        self._model = (model,)  # not a part of the guide: its parameters are the pair's
        self.steps, self.rate, self.particles, self.through = steps, rate, particles, through

    @property
    def family(self) -> Family:
        """What rows are turned into."""
        return self.start.family

    @property
    def site(self) -> str:
        """Name of the latent."""
        return self.start.site

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """q(z | x) after the steps, for each row of ``x`` ``(B, *event)``."""
        first = self.start.rows(x)
        rows, bound = first, partial(self._bound, x=x, index=index)
        with torch.enable_grad():
            for _ in range(self.steps):
                rows = uphill(rows, bound, self.rate, through=self.through)
        if self.through or not self.steps:
            return self.family(rows)
        return self.family(first + (rows - first).detach())

    def _bound(self, rows: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
        """Sum over data of L(lambda_n), by fresh draws of q."""
        q = self.family(rows)

        def log_weight(z: Tensor) -> Tensor:
            return self._log_joint(z, x, index) - q.log_prob(z)

        return pathwise_mean(log_weight, q, self.particles).sum()

    def _log_joint(self, z: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
        """log p(x_n, z_n) of draws ``(K, B, d)``, which stand as further data: ``(K, B)``."""
        copies = [
            None if each is None else each.repeat(len(z), *(1,) * (each.dim() - 1))
            for each in (x, index)
        ]
        values = {self.site: z.flatten(0, 1)[None]}
        with block():  # handlers around the guide are not around this look at the model
            log_joint = trace.log_joint(self._model[0], values, *copies, particles=1)
        return log_joint.reshape(z.shape[:2])

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples z ``(B, d)`` inside the data plate."""
        posterior = self.posterior(x, index)
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, pyro_ready(posterior))


def uphill(
    rows: Tensor, bound: Callable[[Tensor], Tensor], rate: float, *, through: bool = False
) -> Tensor:
    """Rows after a step of plain gradient ascent, ``rate * slope / max(1, |slope|)``.

    Args:
        rows: lambda, ``(B, size)``.
        bound: of the rows, the sum over data of L(lambda_n), nats.
        rate: step size, in units of lambda for a gradient of one nat.
        through: whether the step is differentiable in what the rows come from.

    Returns:
        ``(B, size)``.

    Example:
        >>> uphill(torch.tensor([[3.0], [0.5]]), lambda rows: -rows.square().sum() / 2, 0.1)
        tensor([[2.9000],
                [0.4500]], grad_fn=<AddBackward0>)
    """
    through = through and rows.requires_grad
    rows = rows if through else rows.detach().requires_grad_()
    (slope,) = torch.autograd.grad(bound(rows), rows, create_graph=through)
    length = slope.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return rows + rate * slope / length
