"""The floor: the networks' matrix products alone, forward and backward, and nothing between them.

An affine map y = x W' costs one product forward, and two backward: dW = dy' x and dx = dy W (the
latter not for the data).  Each is made in the fastest way that torch has, found out at the start:
by MKL, as it stands or as the transpose B'A' = (AB)', or by oneDNN.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.cases import Arrays, Case

Product = Callable[[], Tensor]


class Products:
    """One set of products a step."""

    def __init__(self, case: Case, weights: Arrays) -> None:
        self.products: list[Product] = []
        rows = case.batch * case.particles
        for name in (name for name in weights if name.endswith("weight")):
            weight = torch.from_numpy(weights[name])
            x, y = torch.randn(rows, weight.shape[1]), torch.randn(rows, len(weight))
            pairs = [(x, weight.T), (y.T, x)]
            pairs += [(y, weight)] if name != "encoder.0.weight" else []
            self.products += [fastest(a, b) for a, b in pairs]

    def run(self, steps: int) -> None:
        """Multiplies as often as so many steps would."""
        with torch.no_grad():
            for _ in range(steps):
                for product in self.products:
                    product()

    def weights(self) -> Arrays:
        """None: nothing is trained."""
        return {}


def fastest(a: Tensor, b: Tensor) -> Product:
    """a b, or its transpose, in whichever way takes least."""
    rows, columns = len(a), b.shape[1]
    ways: list[Product] = [
        partial(torch.mm, a, b, out=torch.empty(rows, columns)),
        partial(torch.mm, b.T, a.T, out=torch.empty(columns, rows)),
    ]
    if torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        ways.append(partial(linear, a, b.T, None, "none", [], ""))
    return min(ways, key=seconds)


def seconds(product: Product, times: int = 30) -> float:
    """The shortest of so many runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        product()
        took.append(time.perf_counter() - start)
    return min(took)


def make(case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray) -> Products:
    """The contestant, set up."""
    return Products(case, weights)
