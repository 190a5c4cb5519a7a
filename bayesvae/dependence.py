"""What a guide depends on: which parameters, and whether on the positions of its data.

Both are read off gradients of the guide's draws and log-densities, so that they hold for any
program, however it is written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesvae.programs import Program
from bayesvae.trace import draws


def _gradients(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None
) -> list[Tensor | None]:
    """Gradients of the sum of the guide's draws and densities; the random stream is put back."""
    with torch.random.fork_rng(), torch.enable_grad():
        sites = [site for site in draws(guide, x, index).values() if not site.observed]
        reach = sum(site.value.sum() + site.log_density().sum() for site in sites)
        if not isinstance(reach, Tensor) or not reach.requires_grad:
            return [None] * len(parameters)
        return list(torch.autograd.grad(reach, parameters, allow_unused=True))


def guide_parameters(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None = None
) -> list[Tensor]:
    """Those of the parameters on which the guide's draws or densities depend.

    Args:
        guide: the guide.
        parameters: candidates.
        x: a batch ``(B, *event)``.
        index: its positions.
    """
    trained = [p for p in parameters if p.requires_grad]
    gradients = _gradients(guide, trained, x, index)
    return [p for p, gradient in zip(trained, gradients, strict=True) if gradient is not None]


def reads_index(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None
) -> bool:
    """Whether the guide treats one and the same datum differently at two positions.

    True of guides with a row a datum: they have nothing to say about unseen data.

    Args:
        guide: the guide.
        parameters: its parameters, and perhaps others.
        x: a batch ``(B, *event)``.
        index: its positions.
    """
    if index is None or len(index) < 2:
        return False
    trained = [p for p in parameters if p.requires_grad]
    first, second = (_gradients(guide, trained, x[:1], index[i : i + 1]) for i in (0, 1))
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return any(not torch.equal(a.to_dense(), b.to_dense()) for a, b in pairs)


def refuse_unseen(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None, argument: str
) -> None:
    """Refuses unseen data for a guide that has nothing to say about them.

    Args:
        guide: the guide.
        parameters: its parameters, and perhaps others.
        x: a batch of training data ``(B, *event)``.
        index: its positions.
        argument: what the unseen data were given as.

    Raises:
        ValueError: if the guide reads the index.
    """
    if reads_index(guide, parameters, x, index):
        raise ValueError(
            f"`{argument}` needs a guide that serves unseen data; got one that looks "
            f"up a row for each datum by `index`. Leave `{argument}` out, or use Amortized(...)."
        )
