"""Optimisers: Adam for tables with one row a datum, and Pyro's ClippedAdam in tensors alone.

A batch touches a few rows of such a table.  A dense optimiser moves every row at every step:
momentum carries on without a gradient.  For rows that are the variational parameters of single
data that is drift, towards nowhere.  Here a row has its own moments and its own step count (so its
first step is debiased as a first step), and only rows with a gradient move.
"""

from collections.abc import Callable, Iterable

import torch
from pyro.optim.clipped_adam import ClippedAdam
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


def count_in_tensors(optimizer: ClippedAdam) -> None:
    """Keeps step counts as tensors from now on, as torch's own optimisers do."""
    for parameter, state in optimizer.state.items():
        if not isinstance(state["step"], Tensor):
            state["step"] = torch.tensor(float(state["step"]), device=parameter.device)


@torch.no_grad()
def clipped_adam_step(optimizer: ClippedAdam) -> None:
    """What ``ClippedAdam.step`` does to tensors, with counts and rates that are tensors too.

    Its decay of the learning rate, a number in Python, is left to the caller.
    """
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for p in group["params"]:
            if p.grad is None:
                continue
            state, gradient = (
                optimizer.state[p],
                p.grad.clamp(-group["clip_norm"], group["clip_norm"]),
            )
            step = state["step"].add_(1)
            if group["weight_decay"] != 0:
                gradient = gradient.add(p, alpha=group["weight_decay"])
            mean = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
            spread = gradient - mean if group["centered_variance"] else gradient
            square = state["exp_avg_sq"].mul_(beta2).addcmul_(spread, spread, value=1 - beta2)
            debiased = (1 - beta2**step).sqrt() / (1 - beta1**step)
            p.sub_(group["lr"] * debiased * mean / (square.sqrt() + group["eps"]))
