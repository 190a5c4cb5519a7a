"""The log joint density of a pair at given latents, and its gradient in them.

What samplers ask for thousands of times: grad_z log p(x_n, z_n) is also grad_z log p(z_n | x_n),
because log p(x_n) does not depend on z.  Each datum has latents of its own, so the gradient of the
sum over data and particles is the gradient of each by itself.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesvae.compiler import Compiled, When
from bayesvae.core import trace
from bayesvae.core.estimates import require_particles
from bayesvae.core.pair import Pair, require_pair

Latents = Mapping[str, Tensor]
"""Latents by the names of their sites: local ones ``(K, B, *event)``, shared ones ``event``."""


class LogJoint:
    """log p(x_n, z_n) and its gradient in z_n, compiled as soon as that pays.

    Shared latents have to be among the values as well; their own densities are left out.  The
    modes of the pair's modules are respected: put it in evaluation mode first.

    Args:
        pair: the pair; only its model is run.
        particles: K, sets of latents for each datum.
        compile: "auto", True or False, as in `CompiledSVI`.
        calls: how many calls there will be, if that is known.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> log_joint = LogJoint(pair, particles=2)
        >>> value, gradient = log_joint.gradient({"z": torch.ones(2, 4, 1)}, torch.zeros(4, 3))
        >>> value.shape, gradient["z"][0, 0]
        (torch.Size([2, 4]), tensor([-2.]))
    """

    def __init__(
        self, pair: Pair, particles: int = 1, *, compile: When = "auto", calls: int | None = None
    ) -> None:
        require_pair(pair)
        require_particles(particles=particles)
        self.pair, self.particles = pair, particles
        self._known: dict[str, trace.Site] = {}
        options = {"when": compile, "calls": calls}
        self._value = Compiled(self._density, [pair], name="The log joint", **options)
        self._gradient = Compiled(
            self._with_gradient, [pair], name="The gradient of the log joint", **options
        )

    def __call__(self, values: Latents, x: Tensor, index: Tensor | None = None) -> Tensor:
        """log p(x_n, z_n), nats, ``(K, B)``.

        Args:
            values: the latents.
            x: a batch ``(B, *event)``.
            index: its positions ``(B,)``, for models that need them.

        Raises:
            ValueError: if a latent of the model is not among ``values``, or one of other shape.
        """
        self._require(values, x, index)
        with torch.no_grad():
            return self._value(dict(values), x, index)[0]

    def gradient(
        self, values: Latents, x: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log p(x_n, z_n) and its gradient in every given latent.

        Args:
            values: the latents.
            x: a batch ``(B, *event)``.
            index: its positions ``(B,)``, for models that need them.

        Returns:
            The density ``(K, B)``, nats, and the gradients by name, shaped as the latents; that in
            a shared latent is summed over particles and data.

        Raises:
            ValueError: if a latent of the model is not among ``values``, or one of other shape.
            TypeError: if one is not of real numbers.
        """
        self._require(values, x, index)
        for name, latent in values.items():
            if not latent.is_floating_point():
                raise TypeError(
                    f"A gradient needs real latents; '{name}' is {latent.dtype}. Call the log "
                    "joint itself, or leave that latent out of the model."
                )
        value, *gradients = self._gradient(dict(values), x, index)
        return value, dict(zip(values, gradients, strict=True))

    def _require(self, values: Latents, x: Tensor, index: Tensor | None) -> None:
        """Looks at names and shapes; the model is run once to know them."""
        if not self._known:
            with torch.no_grad(), torch.random.fork_rng():
                self._known = trace.draws(self.pair.model, x, index)
                self._dims = trace.nesting(self.pair.model, trace.silent, x, index)
        for name, latent in values.items():
            if name not in self._known:
                raise ValueError(
                    f"The model has no site '{name}'; its latents are "
                    f"{[n for n, site in self._known.items() if not site.observed]}."
                )
            site, wanted = self._known[name], tuple(self._known[name].value.shape)
            if site.data_plate is not None:
                at = _plates(site) - 1
                wanted = (self.particles, *wanted[:at], len(x), *wanted[at + 1 :])
            if tuple(latent.shape) != wanted:
                raise ValueError(
                    f"'{name}' needs the shape {wanted}, K = {self.particles} sets of latents "
                    f"first if it belongs to single data; got {tuple(latent.shape)}."
                )

    def _laid_out(self, name: str, value: Tensor) -> Tensor:
        """With a dim for each plate of the model, so that the sets stand left of them all."""
        site = self._known[name]
        if site.data_plate is None:
            return value
        absent = (1,) * (self._dims - _plates(site))
        return value.reshape(len(value), *absent, *value.shape[1:])

    def _density(self, values: Latents, x: Tensor, index: Tensor | None) -> list[Tensor]:
        laid_out = {name: self._laid_out(name, value) for name, value in values.items()}
        model, particles = self.pair.model, self.particles
        return [trace.log_joint(model, laid_out, x, index, particles=particles)]

    def _with_gradient(self, values: Latents, x: Tensor, index: Tensor | None) -> list[Tensor]:
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
            (value,) = self._density(leaves, x, index)
            gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
        return [value.detach(), *gradients]


def _plates(site: trace.Site) -> int:
    """How many dims of a site's value belong to plates."""
    return site.value.dim() - len(site.distribution.event_shape)
