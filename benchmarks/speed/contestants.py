"""Who takes part, and where each is written; nothing is imported here that one of them needs."""

import importlib
from typing import Any, NamedTuple, Protocol

from benchmarks.speed.cases import Arrays, Case


class Steps(Protocol):
    """A contestant that is set up: it trains, and shows where it got to."""

    def run(self, steps: int) -> None:
        """Takes so many steps, on batch after batch, and returns when the last is done."""

    def weights(self) -> Arrays:
        """The parameters by name, as in `cases.first_weights`."""


class Contestant(NamedTuple):
    """One row of the table.

    Attributes:
        title: what the table calls it.
        module: the file that holds it, below this folder.
        options: arguments for that file's ``make``.
        priors: the priors that it has a counterpart for.
        beyond: whether it takes part in cases beyond one draw and a diagonal covariance.
        trains: False for the floor, which has no weights to compare.
        analytic_kl: whether it takes the KL in closed form whatever the case says.
    """

    title: str
    module: str
    options: dict[str, Any]
    priors: tuple[str, ...] = ("standard", "mixture", "vamp")
    beyond: bool = True
    trains: bool = True
    analytic_kl: bool = False

    def takes(self, case: Case) -> bool:
        """Whether it has a counterpart of a case."""
        if case.analytic_kl and self.options.get("analytic_kl"):
            return False  # the case asks it of everybody
        plain = not case.full and case.particles == 1 and not case.table
        return case.prior in self.priors and (plain or self.beyond)


STANDARD = ("standard",)
BF16 = {"compile": True, "networks": "bfloat16"}

CONTESTANTS = {
    "bayesvae": Contestant("bayesvae compiled", "in_bayesvae", {"compile": True}),
    "bayesvae-bf16": Contestant("bayesvae compiled, bf16", "in_bayesvae", BF16),
    "bayesvae-eager": Contestant("bayesvae eager", "in_bayesvae", {"compile": False}),
    "hand": Contestant("hand-written, fused Adam", "in_torch", {}),
    "hand-loss": Contestant("hand-written, compiled loss", "in_torch", {"compiled": "loss"}),
    "hand-adam": Contestant("hand-written, compiled loss, Adam", "in_torch", {"compiled": "adam"}),
    "hand-step": Contestant("hand-written, one graph", "in_torch", {"compiled": "step"}),
    "pyro": Contestant("pyro SVI", "in_pyro", {}),
    "pyro-mean-field": Contestant(
        "pyro SVI, analytic KL",
        "in_pyro",
        {"analytic_kl": True},
        STANDARD,
        False,
        analytic_kl=True,
    ),
    "numpyro": Contestant("NumPyro, jitted update", "in_numpyro", {}),
    "numpyro-loop": Contestant("NumPyro, fori_loop", "in_numpyro", {"loop": True}),
    "pythae": Contestant(
        "pythae, trainer's steps", "in_pythae", {}, STANDARD, False, analytic_kl=True
    ),
    "floor": Contestant("matrix products alone", "floor", {}, STANDARD, False, False),
}


class Entry(NamedTuple):
    """A row for epochs: its title, its file, and arguments for that file's ``epochs``."""

    title: str
    module: str
    options: dict[str, Any]


EPOCHS = {
    "bayesvae": Entry("bayesvae.fit, compile=True", "in_bayesvae", {}),
    "bayesvae-auto": Entry("bayesvae.fit, auto", "in_bayesvae", {"compile": "auto"}),
    "bayesvae-bf16": Entry("bayesvae.fit, bf16", "in_bayesvae", {"networks": "bfloat16"}),
    "bayesvae-eager": Entry("bayesvae.fit, eager", "in_bayesvae", {"compile": False}),
    "hand": Entry("hand-written loop", "in_torch", {}),
    "hand-step": Entry("hand-written loop, one graph", "in_torch", {"compiled": "step"}),
    "pyro": Entry("pyro SVI with a DataLoader", "in_pyro", {}),
    "numpyro": Entry("NumPyro, an epoch a call", "in_numpyro", {}),
    "pythae": Entry("pythae's trainer", "in_pythae", {}),
}

HAND_COMPILED = ("hand-loss", "hand-adam", "hand-step")


def make(name: str, case: Case, weights: Arrays, x: Any, index: Any) -> Steps:
    """Sets a contestant up, importing what it needs.

    Args:
        name: a key of `CONTESTANTS`.
        case: the model.
        weights: first weights by name.
        x: batches ``(M, B, D)``, float32.
        index: positions ``(M, B)``.
    """
    contestant = CONTESTANTS[name]
    module = importlib.import_module(f"benchmarks.speed.{contestant.module}")
    return module.make(case, weights, x, index, **contestant.options)
