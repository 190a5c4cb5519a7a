"""What every evaluation of a pair begins with: looks at pair and data, modes, shared latents."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from bayesvae.compiler import unvalidated
from bayesvae.core import programs, trace
from bayesvae.core.dependence import refuse_positions
from bayesvae.core.distributions import centre_of
from bayesvae.core.pair import Pair, evaluation_mode, on_device_of
from bayesvae.core.soundness import require_sound
from bayesvae.data import sequential


def first_batch(pair: Pair, data: Any) -> tuple[Tensor, Tensor]:
    """A few data, on the pair's device, after a look at whether the pair can be evaluated on them.

    Raises:
        ValueError: if the pair is not sound, or if its guide has rows for other data.
    """
    source = sequential(data, 16)
    x, index = on_device_of(pair, *next(iter(source)))
    require_sound(pair, (x, index))
    refuse_positions(pair.guide, list(pair.parameters()), x, index, source)
    return x, index


def on_device(pair: Pair, source: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the pair's device.

    Raises:
        ValueError: at the first datum that is not finite.
    """
    for x, index in source:
        if not torch.isfinite(x).all():
            bad = index[~torch.isfinite(x).flatten(1).all(1)][0].item()
            raise ValueError(
                f"Data must be finite; the datum at position {bad} is not. Remove it."
            )
        yield on_device_of(pair, x, index)


def require_a(kind: type, remedy: str, **named: Any) -> None:
    """Refuses settings that are of another kind.

    Args:
        kind: the class that is wanted.
        remedy: what to pass, in code.
        **named: the settings.

    Raises:
        TypeError: with what was given instead.
    """
    for name, value in named.items():
        if not isinstance(value, kind):
            raise TypeError(
                f"`{name}` takes a value of type {kind.__name__}; got {value!r}. Use {remedy}."
            )


@contextmanager
def evaluating(pair: Pair) -> Iterator[None]:
    """Evaluation mode, no gradients, no validation; the modules' modes are put back afterwards."""
    with torch.inference_mode(False), evaluation_mode(pair), torch.no_grad(), unvalidated:
        yield


def conditioned(
    pair: Pair, x: Tensor, index: Tensor | None, draw: bool = False
) -> tuple[programs.Program, programs.Program, str]:
    """Model and guide with shared latents fixed, and the fact in words.

    Auxiliary latents of the guide are not scored, so that its weights have the mean p(x).

    Args:
        pair: the pair.
        x: a batch ``(B, *event)``.
        index: its positions.
        draw: fix them at a draw of the guide rather than at its mean.

    Raises:
        ValueError: if a local latent's guide is a point mass, for which weights mean nothing, or
            if a shared one's has no mean.
    """
    guide = pair.guide
    for site in trace.draws(guide, x, index).values():
        if isinstance(site.base, dist.Delta) and site.data_plate is not None:
            raise ValueError(
                f"The guide of '{site.name}' is a point mass, so log p(x, z) - log q(z | x) is no "
                "weight. Use a guide with a density; in place of an autoguide, whose sites are "
                "point masses given auxiliary ones, guides.PerDatapoint(...)."
            )
    values = _shared_values(guide, x, index, draw)
    if not values:
        return pair.model, programs.given_auxiliaries(guide), ""
    kind = "a draw" if draw else "the mean"
    words = f"given shared latents {sorted(values)} at {kind} of their guide"
    if not draw and _differ(values, _shared_values(guide, *_half(x, index), draw)):
        words += f", which reads the data, for the first {len(x)} of them"
    guide = programs.given_auxiliaries(programs.given(guide, values))
    return programs.given(pair.model, values), guide, words


def _half(x: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
    rows = (len(x) + 1) // 2
    return x[:rows], None if index is None else index[:rows]


def _differ(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(value, second[name]) for name, value in first.items())


def _shared_values(
    guide: programs.Program, x: Tensor, index: Tensor | None, draw: bool
) -> dict[str, Tensor]:
    """Means or draws of the guide's shared latents; point masses follow what they depend on.

    Raises:
        ValueError: if a mean is asked for where there is none.
    """
    values: dict[str, Tensor] = {}
    shared = [s for s in trace.draws(guide, x, index).values() if s.data_plate is None]
    for site in shared:
        if site.observed or isinstance(site.base, dist.Delta):
            continue
        values[site.name] = site.value if draw else _mean(site)
    settled = trace.draws(programs.given(guide, values), x, index)
    values |= {s.name: settled[s.name].value for s in shared if isinstance(s.base, dist.Delta)}
    return values


def _mean(site: trace.Site) -> Tensor:
    mean = centre_of(site.distribution)
    if mean is not None and torch.isfinite(mean).all():
        return mean
    raise ValueError(
        f"Shared latents are fixed at their guide's mean, which '{site.name}' has not "
        f"({type(site.base).__name__}). Use log_evidence(..., draw_shared=True)."
    )
