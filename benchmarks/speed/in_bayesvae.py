"""This package: `bayesvae.CompiledSVI` over a pair, compiled or not, networks in bf16 or not."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

import bayesvae
from benchmarks.speed.cases import Arrays, Case
from benchmarks.speed.in_torch import TorchSteps, arrays
from benchmarks.speed.parts import make_elbo, make_pair, make_parts
from benchmarks.speed.worker import Gate


def make(
    case: Case,
    weights: Arrays,
    x: np.ndarray,
    index: np.ndarray,
    compile: bool = True,
    networks: str | None = None,
) -> TorchSteps:
    """The contestant, set up."""
    parts = make_parts(case, weights)
    pair = make_pair(parts)
    svi = bayesvae.CompiledSVI(
        pair.model,
        pair.guide,
        torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True),
        make_elbo(case),
        compile=compile,
        networks=None if networks is None else getattr(torch, networks),
    )
    return TorchSteps(svi.update, parts.named, x, index)


class GatedLoader(bayesvae.data.Loader):
    """A loader whose epochs begin when the gate opens; a look at its first batch is no epoch."""

    def __init__(self, gate: Gate, named: dict[str, Tensor], grey: Tensor, batch: int) -> None:
        super().__init__(grey, batch, shuffle=True, transform=bayesvae.data.dynamic_binarisation)
        self.gate, self.named, self.closed = gate, named, True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.closed:
            self.gate.next(partial(arrays, self.named))
            self.closed = False
        yield from super().__iter__()
        self.closed = True


def epochs(
    case: Case,
    weights: Arrays,
    levels: np.ndarray,
    gate: Gate,
    compile: bool | str = True,
    networks: str | None = None,
) -> None:
    """Epochs of `bayesvae.fit`, while the gate opens."""
    parts = make_parts(case, weights)
    grey = torch.from_numpy(levels).float().div(255)
    bayesvae.fit(
        make_pair(parts),
        GatedLoader(gate, parts.named, grey, case.batch),
        make_elbo(case),
        epochs=gate.planned,
        compile=compile,
        networks=None if networks is None else getattr(torch, networks),
        progress=False,
    )
