"""One step uphill on every datum's own bound: what a semi-amortized guide repeats.

A row far from its optimum has a slope of any size, so slopes longer than one are cut to one.
"""

from collections.abc import Callable

import torch
from torch import Tensor


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
