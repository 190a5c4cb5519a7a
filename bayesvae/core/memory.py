"""Cutting work to a memory budget: what one draw takes, and how many are made at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from bayesvae.compiler import AllocatedBytes

MEMORY = 2**28
"""Default memory budget of an evaluation, bytes."""


def bytes_per_draw(program: Callable[[], Any], draws: int) -> int:
    """Memory that one draw (one particle of one datum) takes at most.

    Args:
        program: handles ``draws`` of them at once.
        draws: how many.
    """
    with torch.random.fork_rng(), AllocatedBytes() as allocated:
        program()
    return max(1, allocated.total // draws)


class Chunks(NamedTuple):
    """How much is done at once: ``rows`` data with ``particles`` draws each."""

    rows: int
    particles: int


def chunks(memory: int, per_draw: int, particles: int) -> Chunks:
    """The largest chunks within a memory budget, whole data first.

    Args:
        memory: bytes.
        per_draw: bytes of one draw.
        particles: draws of each datum in all.

    Example:
        >>> chunks(memory=1000, per_draw=1, particles=100)
        Chunks(rows=10, particles=100)
        >>> chunks(memory=1000, per_draw=100, particles=100)
        Chunks(rows=1, particles=10)
    """
    draws = max(1, memory // per_draw)
    return Chunks(max(1, draws // particles), min(particles, draws))
