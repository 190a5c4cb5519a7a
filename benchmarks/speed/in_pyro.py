"""Pyro by its own means: `pyro.infer.SVI` with `pyro.optim.Adam`, validation switched off."""

from functools import partial

import numpy as np
import pyro
import torch
from pyro.infer import SVI
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.cases import Arrays, Case
from benchmarks.speed.in_torch import TorchSteps, arrays
from benchmarks.speed.parts import Parts, PlainPyro, make_elbo, make_parts
from benchmarks.speed.worker import Gate


def make(
    case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray, analytic_kl: bool = False
) -> TorchSteps:
    """The contestant, set up."""
    parts = make_parts(case, weights)
    return TorchSteps(_svi(case, parts, analytic_kl).step, parts.named, x, index)


def epochs(case: Case, weights: Arrays, levels: np.ndarray, gate: Gate) -> None:
    """Epochs as in Pyro's introduction, with a `DataLoader`, while the gate opens."""
    parts = make_parts(case, weights)
    svi = _svi(case, parts)
    grey = torch.from_numpy(levels).float().div(255)
    images = TensorDataset(grey, torch.arange(len(grey)))
    loader = DataLoader(images, case.batch, shuffle=True)
    while True:
        gate.next(partial(arrays, parts.named))
        for x, index in loader:
            svi.step(torch.bernoulli(x), index)


def _svi(case: Case, parts: Parts, analytic_kl: bool = False) -> SVI:
    pyro.enable_validation(False)
    programs, adam = PlainPyro(parts), pyro.optim.Adam({"lr": 1e-3})
    return SVI(programs.model, programs.guide, adam, make_elbo(case, analytic_kl))
