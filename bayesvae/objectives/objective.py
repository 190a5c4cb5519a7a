"""What counts as an objective: a function of the two programs, or an ``ELBO`` object of Pyro's."""

from collections.abc import Callable
from typing import Any

from pyro.infer import (
    ELBO,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceMeanField_ELBO,
    TraceMeanField_ELBO,
)
from torch import Tensor

from bayesvae.core.programs import Program

Objective = Callable[..., Tensor]
"""A bound to maximise: ``(model, guide, *batch) -> Tensor ()``, nats per datum."""


def per_datum(objective: Objective | ELBO, size: int) -> Objective:
    """The objective itself, or Pyro's loss turned into a bound in nats per datum.

    Args:
        objective: one of ours, your own, or a Pyro ``ELBO`` object with a differentiable loss.
        size: N; the data plate has to stand for as many (see `bayesvae.core.programs.sized`).

    Raises:
        TypeError: for anything else, for ELBO objects without ``differentiable_loss``, and for the
            ``Jit`` ones.
    """
    if not isinstance(objective, ELBO):
        if callable(objective) and not isinstance(objective, type):
            return objective
        raise TypeError(
            "An objective is a function (model, guide, *batch) -> Tensor () or a Pyro ELBO; "
            f"got {getattr(objective, '__name__', type(objective).__name__)}."
        )
    refuse_jit(objective)
    if not hasattr(objective, "differentiable_loss"):
        raise TypeError(
            f"{type(objective).__name__} has no differentiable_loss. Use Trace_ELBO, "
            "TraceMeanField_ELBO or bayesvae.objectives.elbo."
        )

    def bound(model: Program, guide: Program, *batch: Any) -> Tensor:
        return -objective.differentiable_loss(model, guide, *batch) / size

    return bound


def refuse_jit(objective: ELBO) -> None:
    """Refuses Pyro's ``Jit`` objectives, which bake in what should be read at every step.

    Raises:
        TypeError: with the objective to use instead.
    """
    if isinstance(objective, (JitTrace_ELBO, JitTraceMeanField_ELBO, JitTraceEnum_ELBO)):
        raise TypeError(
            f"{type(objective).__name__} keeps the programs of its first call, without later KL "
            f"weights or sizes. Use {type(objective).__name__.removeprefix('Jit')}."
        )


def is_pathwise(objective: Objective | ELBO) -> bool:
    """Whether gradients reach the guide only through its draws.

    Functions are taken to be pathwise unless they carry ``pathwise = False``.
    """
    if isinstance(objective, ELBO):
        return isinstance(objective, TraceMeanField_ELBO)
    return getattr(objective, "pathwise", True)
