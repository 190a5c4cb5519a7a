"""Pyro's ``ClippedAdam`` in tensors alone, so that a graph can hold its step.

Pyro's own counts steps as Python numbers; here counts and rates are tensors, and the numbers that
come out are the same.
"""

import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor


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
