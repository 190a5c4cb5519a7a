"""Programs and what may be done to them from outside: sizes, weights, fixed sites, repetition.

Every change is a Pyro handler around the unchanged program, so that models and guides stay free of
subsampling factors, annealing and the like.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Program = Callable[..., Any]
"""A Pyro stochastic function of a batch: a model or a guide."""

DATA_PLATE = "data"
PARTICLE_PLATE = "particles"


class _SizedPlate(Messenger):
    """Tells the data plate of a program that its batch stands for ``size`` data."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def _pyro_sample(self, msg: dict) -> None:
        frames = msg["cond_indep_stack"]
        for position, frame in enumerate(frames):
            if frame.name == DATA_PLATE and frame.full_size in (None, -1, frame.size):
                batch = frame.size if frame.size > 0 else self.size
                sized = frame._replace(full_size=self.size, size=batch)
                msg["cond_indep_stack"] = (*frames[:position], sized, *frames[position + 1 :])
                msg["scale"] = msg["scale"] * (self.size / batch)


class _WeightedLatents(Messenger):
    """Multiplies the scale of every latent site by ``weight``."""

    def __init__(self, weight: Tensor | float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self.weight


class _UnscoredAuxiliaries(Messenger):
    """Takes the density out of every auxiliary latent."""

    def _pyro_sample(self, msg: dict) -> None:
        if msg["infer"].get("is_auxiliary"):
            msg["mask"] = False


def within(program: Program, *contexts: Any) -> Program:
    """The program run inside Pyro handlers or plates; keeps its signature and its identity."""

    @wraps(program)
    def handled(*batch: Any, **named: Any) -> Any:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            return program(*batch, **named)

    return handled


def sized(program: Program, size: int) -> Program:
    """The program with its data plate standing for a data set of ``size`` rows.

    A plate that already subsamples keeps the size that it states.
    """
    return within(program, _SizedPlate(size))


def kl_weighted(program: Program, weight: Tensor | float) -> Program:
    """The program with every latent site scaled by ``weight``."""
    return within(program, _WeightedLatents(weight))


def given(program: Program, values: Mapping[str, Tensor]) -> Program:
    """The program with the named sites fixed at ``values``; unchanged if there are none."""
    return within(program, poutine.condition(data=dict(values))) if values else program


def given_auxiliaries(guide: Program) -> Program:
    """The guide with densities given its auxiliary latents a, whose own is left out.

    With z ~ q(z | a, x) under a ~ q(a | x), p(x, z) / q(z | a, x) has the mean p(x) for every a.
    To divide by q(a | x) too, where the model has nothing to set against it, adds its entropy.
    """
    return within(guide, _UnscoredAuxiliaries())


def sampled(program: Program) -> Program:
    """The program with its observations drawn instead of read."""
    return within(program, poutine.uncondition())
