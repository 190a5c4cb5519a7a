"""What a guide depends on: which parameters, and whether on the positions of its data.

Both are read off gradients of the guide's draws and log-densities, so that they hold for any
program, however it is written.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae.compiler import one_thread
from bayesvae.core.programs import Program
from bayesvae.core.trace import draws


def _gradients(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None
) -> list[Tensor | None]:
    """Gradients of the sum of the guide's draws and densities, for frozen parameters too.

    The random stream is put back.
    """
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with one_thread, torch.random.fork_rng(), torch.enable_grad():
            sites = [site for site in draws(guide, x, index).values() if not site.observed]
            reach = sum(site.value.sum() + site.log_density().sum() for site in sites)
            if not isinstance(reach, Tensor) or not reach.requires_grad:
                return [None] * len(parameters)
            return list(torch.autograd.grad(reach, parameters, allow_unused=True))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def guide_parameters(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None = None
) -> list[Tensor]:
    """Those of the trained parameters on which the guide's draws or densities depend.

    Args:
        guide: the guide.
        parameters: candidates; frozen ones are left out.
        x: a batch ``(B, *event)``.
        index: its positions.
    """
    trained = [p for p in parameters if p.requires_grad]
    gradients = _gradients(guide, trained, x, index)
    return [p for p, gradient in zip(trained, gradients, strict=True) if gradient is not None]


class Rows(NamedTuple):
    """What is known of a guide that treats one and the same datum differently at two positions.

    Attributes:
        count: how many positions it knows, None if that cannot be told.
    """

    count: int | None


def rows_of(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None, size: int
) -> Rows | None:
    """The rows of a guide with a row a datum; None for a guide that ignores positions.

    Args:
        guide: the guide.
        parameters: its parameters, and perhaps others.
        x: a batch ``(B, *event)``.
        index: its positions.
        size: number of data that have a position.
    """
    if index is None or size < 2:
        return None
    parameters, here = list(parameters), index[:1]
    elsewhere = torch.where(here > 0, here - 1, here + 1)
    found = zip(
        _gradients(guide, parameters, x[:1], here),
        _gradients(guide, parameters, x[:1], elsewhere),
        strict=True,
    )
    differing = [
        (one.to_dense(), other.to_dense())
        for one, other in found
        if one is not None and not torch.allclose(one.to_dense(), other.to_dense(), rtol=1e-3)
    ]
    counts = [_count(*both, here.item(), elsewhere.item()) for both in differing]
    known = [count for count in counts if count is not None]
    return Rows(known[0] if known else None) if differing else None


def _count(one: Tensor, other: Tensor, here: int, elsewhere: int) -> int | None:
    """Length of the axis along which two gradients sit at two positions."""
    for axis, length in enumerate(one.shape):
        ends = [gradient.nonzero()[:, axis].unique().tolist() for gradient in (one, other)]
        if ends == [[here], [elsewhere]]:
            return length
    return None


def refuse_unseen(
    guide: Program,
    parameters: Sequence[Tensor],
    x: Tensor,
    index: Tensor | None,
    size: int,
    argument: str,
) -> None:
    """Refuses unseen data for a guide that has a row for each training datum.

    Args:
        guide: the guide.
        parameters: its parameters, and perhaps others.
        x: a batch of training data ``(B, *event)``.
        index: its positions.
        size: number of training data.
        argument: what the unseen data were given as.

    Raises:
        ValueError: if the guide reads the index.
    """
    if rows_of(guide, parameters, x, index, size) is not None:
        raise ValueError(
            f"`{argument}` needs a guide that serves unseen data; got one that looks "
            f"up a row for each datum by `index`. Leave `{argument}` out, or use Amortized(...)."
        )


def refuse_positions(
    guide: Program, parameters: Sequence[Tensor], x: Tensor, index: Tensor | None, source: Any
) -> None:
    """Refuses data whose positions a guide with a row a datum cannot know.

    Args:
        guide: the guide.
        parameters: its parameters, and perhaps others.
        x: a batch ``(B, *event)``.
        index: its positions.
        source: the loader that it comes from.

    Raises:
        ValueError: if the guide has rows for more data than these, and the data come without
            positions of their own.
    """
    rows = rows_of(guide, parameters, x, index, max(source.size, 2))
    whole = rows is None or rows.count in (None, source.size)
    if not whole and not getattr(source, "positioned", False):
        raise ValueError(
            f"The guide has a row for each of {rows.count} data; got {source.size} data without "
            "their positions. Pass all of them, or a part as (x, index) with its positions."
        )
