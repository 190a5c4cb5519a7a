"""What would silently train the wrong thing, said in words before anything trains on it.

To what `bayesvae.core.soundness` looks for, training adds mistakes of its own: latents without a
pathwise gradient, a parameter outside every gradient, one that the pair cannot see.
"""

from collections.abc import Iterator

import torch
from pyro.infer import ELBO
from torch import Tensor

from bayesvae.core.pair import Pair
from bayesvae.core.programs import sized
from bayesvae.core.sites import Sites
from bayesvae.core.soundness import Batch, not_finite, require_sound
from bayesvae.core.trace import run
from bayesvae.objectives import Objective, elbo, is_pathwise, per_datum


def check_pair(pair: Pair, batch: Batch, objective: Objective | ELBO | None = elbo) -> str:
    """Looks for what would silently train the wrong thing, on one batch.

    Checked: latents missing on one side; the data plate; log-densities broader than the plates
    (the silent (B, B) broadcast); values outside a support, grey levels under a Bernoulli among
    them; a guide whose support exceeds or does not cover the prior's; latents without pathwise
    gradient under a pathwise objective; non-finite log-densities; parameters without gradient
    (freeze those on purpose with ``requires_grad_(False)``).  Nothing is changed, the random
    stream included.

    Args:
        pair: the pair.
        batch: ``x`` of shape ``(B, *event)``, or ``(x, index)``.
        objective: what the pair is to be trained with; None if it is only to be evaluated, which
            leaves the gradients unchecked.

    Returns:
        A table of sites and shapes.

    Raises:
        ValueError: with every finding and the table, if something is wrong.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> print(check_pair(pair, torch.zeros(4, 3)))
        program  site  kind      plates   batch  event  value   log-density
        guide    z     latent    data[4]  (4,)   (1,)   (4, 1)  (4,)
        model    z     latent    data[4]  (4,)   (1,)   (4, 1)  (4,)
        model    x     observed  data[4]  (4,)   (3,)   (4, 3)  (4,)
    """
    if objective is None:
        return require_sound(pair, batch)
    x, index = batch if isinstance(batch, (tuple, list)) else (batch, None)

    def in_training(sites: Sites) -> list[str]:
        found = list(_pathwise(sites)) if is_pathwise(objective) else []
        return found or list(_gradients(pair, objective, x, index))

    return require_sound(pair, batch, in_training)


def _pathwise(sites: Sites) -> Iterator[str]:
    for name, site in sites.guide.items():
        if not getattr(site.distribution, "has_rsample", False):
            yield (
                f"The guide's '{name}' ({type(site.base).__name__}) has no reparameterised "
                "draws, so a pathwise objective gives its parameters a wrong gradient. Use "
                "pyro.infer.Trace_ELBO, or another distribution."
            )


def _gradients(
    pair: Pair, objective: Objective | ELBO, x: Tensor, index: Tensor | None
) -> Iterator[str]:
    parameters = {n: p for n, p in pair.named_parameters() if p.requires_grad}
    bound = per_datum(objective, len(x))
    with torch.enable_grad():
        value = bound(sized(pair.model, len(x)), sized(pair.guide, len(x)), x, index)
        if value.shape != ():
            yield f"An objective returns one number; got shape {tuple(value.shape)}. Average it."
            return
        if hidden := _hidden_shapes(value, {id(p) for p in pair.parameters()}):
            yield (
                "The objective has a gradient in parameters that the pair cannot see, of shapes "
                f"{hidden}; they would never train. Keep them in an nn.Module that is or holds "
                "the program, or name them with pyro.module or pyro.param."
            )
            return
        if not parameters:
            return
        if not value.requires_grad:
            yield "No parameter of the pair has a gradient. Are they behind `torch.no_grad()`?"
            return
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    idle = [name for name, g in zip(parameters, gradients, strict=True) if g is None]
    if idle:
        yield (
            f"These parameters get no gradient and would never train: {idle}. Use them, or freeze "
            "them with requires_grad_(False)."
        )


def non_finite(pair: Pair, x: Tensor, index: Tensor | None, step: int, loss: float) -> str:
    """Says where a loss that is not finite came from: parameters, or sites on the same batch."""
    bad = [n for n, p in pair.named_parameters() if not torch.isfinite(p).all()]
    where = f"parameters {bad} are not finite: the step before was too long"
    if not bad:
        with torch.no_grad():
            sites = run(pair.model, pair.guide, x, index)
        where = " ".join(not_finite(sites)) or "no site on a second draw"
    return (
        f"The loss must be finite; it is {loss} at step {step}. Cause: {where.rstrip('.')}. Lower "
        "the learning rate, bound the gradient with clip_norm, or check the data."
    )


def _hidden_shapes(value: Tensor, known: set[int]) -> list[tuple[int, ...]]:
    """Shapes of the leaves of a tensor's graph that are none of the known ones."""
    waiting, seen, hidden = [value.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            hidden.append(tuple(leaf.shape))
        waiting += [upstream for upstream, _ in node.next_functions]
    return hidden
