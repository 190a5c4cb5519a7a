"""Plain torch: eager with fused Adam, and the same as far as `torch.compile` takes it.

``loss``  the loss compiled, backward with it; fused Adam.
``adam``  the optimiser's step compiled too, as a second graph.
``step``  gradient and Adam in one function and one graph.
"""

from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.speed.cases import Arrays, Case
from benchmarks.speed.handwritten import Weights, parameters, step_loss
from benchmarks.speed.worker import Gate

Step = Callable[[Tensor, Tensor], Tensor]


class TorchSteps:
    """Runs a function of a batch over batches in memory; its loss stays on the device."""

    def __init__(self, step: Step, weights: Weights, x: np.ndarray, index: np.ndarray) -> None:
        self.step, self.named, self.count = step, weights, count()
        self.batches = list(zip(torch.from_numpy(x), torch.from_numpy(index), strict=True))

    def run(self, steps: int) -> None:
        """Takes so many steps."""
        loss = None
        for _ in range(steps):
            loss = self.step(*self.batches[next(self.count) % len(self.batches)])
        _finite(float(loss))

    def weights(self) -> Arrays:
        """The parameters by name."""
        return arrays(self.named)


def arrays(w: Weights) -> Arrays:
    """Copies for NumPy."""
    return {name: value.detach().numpy().copy() for name, value in w.items()}


def _finite(loss: float) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(f"A contestant must train; its loss became {loss}.")


def eager(w: Weights, case: Case) -> Step:
    """The usual loop: loss, backward, fused Adam, and `SparseAdam` for a table."""
    return _loop(w, partial(step_loss, case=case))


def compiled_loss(w: Weights, case: Case) -> Step:
    """The usual loop with the loss compiled."""
    return _loop(w, torch.compile(partial(step_loss, case=case), dynamic=False))


def compiled_adam(w: Weights, case: Case) -> Step:
    """The usual loop with the loss and the optimiser's step compiled."""
    adam = torch.optim.Adam(w.values(), lr=1e-3)
    bound = torch.compile(partial(step_loss, case=case), dynamic=False)
    move = torch.compile(adam.step)

    def step(x: Tensor, index: Tensor) -> Tensor:
        loss = bound(w, x, index)
        loss.backward()
        move()
        adam.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _loop(w: Weights, bound: Callable[..., Tensor]) -> Step:
    dense = [value for name, value in w.items() if name != "table"]
    optimizers: list[Optimizer] = [torch.optim.Adam(dense, lr=1e-3, fused=True)]
    optimizers += [torch.optim.SparseAdam([w["table"]])] if "table" in w else []

    def step(x: Tensor, index: Tensor) -> Tensor:
        loss = bound(w, x, index)
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def compiled_step(w: Weights, case: Case) -> Step:
    """Gradient and Adam as one function, compiled into one graph."""
    for value in w.values():
        value.requires_grad_(False)
    moments = [{k: torch.zeros_like(v) for k, v in w.items()} for _ in range(2)]
    taken = torch.zeros(())

    @torch.compile(fullgraph=True, dynamic=False)
    def step(w: Weights, m: Weights, v: Weights, taken: Tensor, x: Tensor, i: Tensor) -> Tensor:
        gradients, loss = torch.func.grad_and_value(partial(step_loss, case=case))(w, x, i)
        taken += 1
        rate, root = 1e-3 / (1 - 0.9**taken), (1 - 0.999**taken).sqrt()
        for name, g in gradients.items():
            m[name].lerp_(g, 0.1)
            v[name].mul_(0.999).addcmul_(g, g, value=0.001)
            w[name].sub_(rate * m[name] / (v[name].sqrt() / root + 1e-8))
        return loss

    return partial(step, w, *moments, taken)


def epochs(
    case: Case,
    weights: Arrays,
    levels: np.ndarray,
    gate: Gate,
    compiled: str | None = None,
) -> None:
    """Epochs over images in memory, shuffled, binarised by batches; while the gate opens."""
    grey, w = torch.from_numpy(levels).float().div(255), parameters(weights)
    step = STEPS[compiled](w, case)
    while True:
        gate.next(partial(arrays, w))
        total = torch.zeros(())
        for rows in torch.randperm(len(grey)).split(case.batch):
            drawn = grey.index_select(0, rows)
            total += step((torch.rand_like(drawn) < drawn).float(), rows) * len(rows)
        _finite(float(total))


STEPS = {None: eager, "loss": compiled_loss, "adam": compiled_adam, "step": compiled_step}


def make(
    case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray, compiled: str | None = None
) -> TorchSteps:
    """The contestant, set up."""
    w = parameters(weights)
    return TorchSteps(STEPS[compiled](w, case), w, x, index)
