"""The evidence lower bound.

For a data set of N with local latents z_n and shared latents w it is, per datum,

    1/B sum_n { E_q log p(x_n | z_n, w) - KL(q(z_n | x_n) || p(z_n | w)) }
    + 1/N { E_q log p(x | w) - KL(q(w) || p(w)) },

the mean over a batch of B standing for the mean over the data ("Auto-Encoding Variational Bayes",
Kingma and Welling, 2014; "Stochastic Variational Inference", Hoffman et al., 2013).
"""

from typing import Any

from torch import Tensor

from bayesvae.core.programs import Program
from bayesvae.core.trace import log_terms


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
