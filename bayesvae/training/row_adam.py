"""Adam for tables with one row a datum.

A batch touches a few rows of such a table.  A dense optimiser moves every row at every step:
momentum carries on without a gradient.  For rows that are the variational parameters of single
data that is drift, towards nowhere.  Here a row has its own moments and its own step count (so its
first step is debiased as a first step), and only rows with a gradient move.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


class RowAdam(Optimizer):
    """Adam by rows, for parameters ``(N, P)`` with sparse gradients.

    "Adam: A Method for Stochastic Optimization" (Kingma and Ba, 2015), the moments and the step
    count kept a row.  ``torch.optim.SparseAdam`` counts steps for the whole table, which makes the
    first step of a row that is seen late up to three times too long.

    Args:
        params: parameters that get sparse gradients.
        lr: step size.
        betas: decay of the two moments.
        eps: added to the root of the second moment.

    Raises:
        ValueError: on a dense gradient, in `step`.

    Example:
        >>> table = torch.nn.Embedding(10, 3, sparse=True)
        >>> before = table.weight.detach().clone()
        >>> table(torch.tensor([2])).sum().backward()
        >>> RowAdam(table.parameters(), lr=0.1).step()
        >>> (table.weight != before).any(1).nonzero().flatten()
        tensor([2])
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Moves the rows that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["betas"], group["eps"])
        return loss

    def _move(
        self, parameter: Parameter, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        if not parameter.grad.is_sparse:
            raise ValueError(
                "RowAdam needs sparse gradients; got a dense one of shape "
                f"{tuple(parameter.shape)}. Look rows up with embedding(..., sparse=True)."
            )
        gradient = parameter.grad.coalesce()
        at, values = gradient.indices()[0], gradient.values()
        state = self.state[parameter]
        if not state:
            state["step"] = parameter.new_zeros(len(parameter), 1)
            state["mean"], state["square"] = (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
            )
        step = state["step"][at] + 1
        mean = state["mean"][at].lerp(values, 1 - betas[0])
        square = state["square"][at].lerp(values**2, 1 - betas[1])
        for name, new in (("step", step), ("mean", mean), ("square", square)):
            state[name][at] = new
        debiased = (square / (1 - betas[1] ** step)).sqrt() + eps
        parameter.index_add_(0, at, -lr * mean / (1 - betas[0] ** step) / debiased)
