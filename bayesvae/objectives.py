"""Objectives: what training maximises, in nats per datum.

An objective is a function ``objective(model, guide, *batch) -> Tensor ()``.  For a data set of N
with local latents z_n and shared latents w, the evidence lower bound per datum is

    1/B sum_n { E_q log p(x_n | z_n, w) - KL(q(z_n | x_n) || p(z_n | w)) }
    + 1/N { E_q log p(x | w) - KL(q(w) || p(w)) },

the mean over a batch of B standing for the mean over the data ("Auto-Encoding Variational Bayes",
Kingma and Welling, 2014; "Stochastic Variational Inference", Hoffman et al., 2013).  Annealing,
beta and other weights live here and never in a model or a guide.
"""

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

from bayesvae.programs import Program
from bayesvae.trace import log_terms

Objective = Callable[..., Tensor]
"""A bound to maximise: ``(model, guide, *batch) -> Tensor ()``, nats per datum."""


def elbo(
    model: Program, guide: Program, *batch: Any, particles: int = 1, analytic_kl: bool = False
) -> Tensor:
    """The evidence lower bound, nats per datum, with pathwise gradients.

    Equals Pyro's losses in value and gradient up to the factor -1/N: ``Trace_ELBO`` with
    reparameterised guides, ``TraceMeanField_ELBO`` with ``analytic_kl=True``.  It differs from the
    latter where that is biased: a KL is taken analytically only if the latent's parents in the
    model precede it in the guide and if model and guide carry the same mask; elsewhere it is
    sampled.  (Pyro takes the mask from the guide's site alone and only warns about the order.)

    Not for guides with discrete latents: their score-function term is missing.  Use
    ``pyro.infer.Trace_ELBO`` there.

    Args:
        model: the generative program; `fit` and data plates that subsample tell it N, otherwise
            the batch is taken for the whole data set.
        guide: the guide.
        *batch: usually ``x`` of shape ``(B, *event)`` and ``index`` ``(B,)``.
        particles: K draws of the guide.
        analytic_kl: use closed-form KL divergences where they exist and hold.

    Returns:
        ``()``, a lower bound in expectation.

    Example:
        >>> import functools
        >>> multi_sample = functools.partial(elbo, particles=8)
    """
    terms = log_terms(
        model, guide, *batch, particles=particles, weighted=True, analytic_kl=analytic_kl
    )
    return terms.local.elbo.mean() + terms.shared.elbo.mean() / terms.size


def per_datum(objective: Objective | ELBO, size: int) -> Objective:
    """The objective itself, or Pyro's loss turned into a bound in nats per datum.

    Args:
        objective: one of ours, your own, or a Pyro ``ELBO`` object with a differentiable loss.
        size: N; the data plate has to stand for as many (see `bayesvae.programs.sized`).

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


def linear_warmup(steps: int, final: float = 1.0) -> Callable[[int], float]:
    """A KL weight that grows linearly from 0 to ``final`` over the first ``steps`` steps.

    "Ladder Variational Autoencoders" (Sønderby et al., 2016).

    Args:
        steps: length of the warm-up, at least 1.
        final: weight from then on.

    Returns:
        A function of the step (from 0) for ``fit(kl_weight=...)``.

    Raises:
        ValueError: if ``steps`` is not positive.

    Example:
        >>> weight = linear_warmup(4)
        >>> [weight(step) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """
    if steps < 1:
        raise ValueError(f"linear_warmup needs steps >= 1; got {steps}. Use kl_weight=1 for none.")

    def weight(step: int) -> float:
        return final * min(step / steps, 1.0)

    return weight
