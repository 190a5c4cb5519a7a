"""The guide's own posterior at learned pseudo-inputs as a prior: the VampPrior."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, transform_to


class Vamp(nn.Module):
    """1/C sum_c q(z | u_c): the guide's own posterior at learned pseudo-inputs u_c.

    "VAE with a VampPrior" (Tomczak and Welling, 2018).

    Args:
        encoder: an object with ``posterior(x) -> Distribution``, such as the pair's `Amortized`
            guide; shared with the guide, it gets gradients from both.
        data: ``(N, *event)``; the pseudo-inputs start at C of its rows, evenly spread over them.
        components: C, the number of pseudo-inputs.
        constraint: where the pseudo-inputs live: `constraints.unit_interval` for images in [0, 1],
            `constraints.real` for real data; None picks the first if ``data`` lies in [0, 1].

    Raises:
        TypeError: if the encoder has no ``posterior``.
        ValueError: if there are fewer data than components.

    Example:
        >>> from bayesvae import families, guides, networks
        >>> guide = guides.Amortized(networks.MLP(4, (8,), 6), families.Normal(3))
        >>> Vamp(guide, torch.rand(100, 4), components=10)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        encoder: nn.Module,
        data: Tensor,
        components: int = 100,
        constraint: constraints.Constraint | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(encoder, "posterior"):
            raise TypeError(
                f"Vamp needs an encoder with `posterior(x)`; got {type(encoder).__name__}. Pass "
                "the guides.Amortized of the same pair."
            )
        if not 1 <= components <= len(data):
            raise ValueError(
                f"Vamp needs 1 <= components <= number of data; got components={components} for "
                f"{len(data)} data."
            )
        if constraint is None:
            unit = bool(((data >= 0) & (data <= 1)).all())
            constraint = constraints.unit_interval if unit else constraints.real
        self.encoder, self.constrain = encoder, transform_to(constraint)
        start = data[torch.linspace(0, len(data) - 1, components).long()]
        if constraint is constraints.unit_interval:
            # The logistic map reaches 0 and 1 only at infinity; begin where gradients still flow.
            start = start.clamp(0.05, 0.95)
        self.raw_inputs = nn.Parameter(self.constrain.inv(start).clone())
        self.register_buffer("logits", torch.zeros(components))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, ``(C, *event)``."""
        return self.constrain(self.raw_inputs)

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return dist.MixtureSameFamily(
            dist.Categorical(logits=self.logits), self.encoder.posterior(self.pseudo_inputs)
        )
