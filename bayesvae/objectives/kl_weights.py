"""Schedules of the KL weight: functions of the step."""

from collections.abc import Callable


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
