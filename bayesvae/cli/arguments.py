"""What can be said on the command line, and short names for the package's parts.

Parts are given by class name with arguments of their own, as in ``--prior Mixture
--prior.components 20``; whatever only the data can tell (shapes, the number of latents, networks)
is supplied by `bayesvae.cli.build`, so those arguments are not asked for.
"""

import inspect
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)
from torch import nn

from bayesvae import families, guides, likelihoods, networks, priors

DATA_SETS = ("digits", "mnist", "fashion-mnist")
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**63)])
BINARISATIONS = ("none", "static", "dynamic")

SUPPLIED = {
    "prior": {"dim", "encoder", "data"},
    "likelihood": {"network"},
    "family": {"dim"},
    "guide": {"network", "family", "size", "site"},
    "encoder": {"inputs", "image", "outputs", "output_bias"},
    "decoder": {"inputs", "image", "outputs", "output_bias"},
}
"""By part, the constructor arguments that the program fills in."""

_HOMES = {
    "prior": priors,
    "prior.family": families,
    "likelihood": likelihoods,
    "family": families,
    "guide": guides,
    "encoder": networks,
    "decoder": networks,
}


def parts(home: ModuleType, base: type = object) -> dict[str, type]:
    """The concrete classes that a module of parts defines, by name."""
    return {
        name: value
        for name, value in vars(home).items()
        if inspect.isclass(value)
        and value.__module__ == home.__name__
        and issubclass(value, base)
        and not inspect.isabstract(value)
    }


def with_full_names(words: Sequence[str]) -> list[str]:
    """Command-line words with class names of the package written as import paths.

    Raises:
        ValueError: for a name without dots that is none of the package's.

    Example:
        >>> with_full_names(["--prior", "Mixture", "--epochs=3"])
        ['--prior', 'bayesvae.priors.Mixture', '--epochs=3']
    """
    full, expects = [], None
    for word in words:
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").removesuffix(".help")
        if expects is not None and not word.startswith("-"):
            full.append(_full_name(expects, word))
            expects = None
        elif option.startswith("--") and key in _HOMES:
            full.append(f"{option}={_full_name(key, value)}" if equals else word)
            expects = None if equals else key
        else:
            full.append(word)
            expects = None
    return full


def _full_name(key: str, name: str) -> str:
    if "." in name:
        return name
    known = parts(_HOMES[key])
    if name not in known:
        raise ValueError(
            f"--{key} takes one of {', '.join(sorted(known))}, or an import path such as "
            f"mymodule.MyClass; got {name!r}."
        )
    return f"{_HOMES[key].__name__}.{name}"


class Parser(ArgumentParser):
    """A parser whose help does not list every module that happens to be installed."""

    def format_help(self, *args: Any, **named: Any) -> str:
        """The help, with the package's own parts as the known ones."""
        text = super().format_help(*args, **named)
        return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", text)


def fit_parser() -> ArgumentParser:
    """The arguments of ``bayesvae fit``; they are also the contents of a run's ``config.yaml``."""
    parser = Parser(
        exit_on_error=False,
        description="Train a latent-variable model and its guide; write a run folder with "
        "checkpoints, metrics, a summary and pictures.",
        epilog="Example: bayesvae fit --data mnist --prior Mixture --prior.components 20 "
        "--out runs/mixture",
    )
    parser.add_argument("--config", action="config", help="read arguments from a YAML file")
    _data_arguments(parser)
    _pair_arguments(parser)
    _training_arguments(parser)
    return parser


def _data_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--data", choices=DATA_SETS, default="digits", help="which data set")
    add("--data-root", type=str | None, help="folder of MNIST; else BAYESVAE_DATA, else a cache")
    add(
        "--binarise",
        choices=BINARISATIONS,
        default=None,
        help="grey levels to bits: not, once, or afresh in each batch (default: dynamic for a "
        "Bernoulli likelihood, else none)",
    )
    add("--levels", type=int | None, help="round grey levels to the integers 0 ... LEVELS - 1")
    add("--validation", type=Share, default=0.1, help="share of the training data held out")


def _pair_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("pair")
    group.add_argument(
        "--latent",
        type=int,
        nargs="+",
        default=[8],
        help="latents of a datum; several numbers make layers, lowest first",
    )
    group.add_argument(
        "--between", type=int, nargs="*", default=[100], help="hidden widths between layers"
    )
    network = {"class_path": "bayesvae.networks.MLP", "init_args": {"hidden": [200]}}
    defaults = {
        "prior": (nn.Module, "bayesvae.priors.StandardNormal", "p(z), on top"),
        "likelihood": (nn.Module, "bayesvae.likelihoods.Bernoulli", "p(x | z)"),
        "family": (families.Family, "bayesvae.families.Normal", "q(z)"),
        "guide": (nn.Module, "bayesvae.guides.Amortized", "where q's parameters come from"),
        "encoder": (nn.Module, network, "network from x to q's parameters; lists as '[200,100]'"),
        "decoder": (nn.Module, network, "network from z to the likelihood's parameters"),
    }
    for key, (base, default, what) in defaults.items():
        if isinstance(default, str):
            default = {"class_path": default}
        names = ", ".join(sorted(parts(_HOMES[key])))
        parser.add_subclass_arguments(
            base,
            key,
            skip=SUPPLIED[key],
            default=default,
            help=f"{what}: {names}; --{key}.help NAME shows its arguments",
        )


def _training_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=PositiveInt, default=100, help="passes over the data")
    add("--batch-size", type=PositiveInt, default=128, help="data in a step")
    add("--learning-rate", type=PositiveFloat, default=1e-3, help="Adam's step size")
    add(
        "--row-learning-rate",
        type=PositiveFloat,
        default=1e-2,
        help="step size for the rows of --guide PerDatapoint",
    )
    add(
        "--warmup",
        type=NonNegativeInt,
        default=0,
        help="steps over which the KL weight grows from 0 to 1",
    )
    add(
        "--inner-steps",
        type=NonNegativeInt,
        default=0,
        help="EM-like: guide's steps before each model's",
    )
    add("--clip-norm", type=PositiveFloat | None, help="bound on the gradient's global norm")
    add("--particles", type=PositiveInt, default=500, help="draws for log p(x) at the end")
    add(
        "--evaluate",
        type=PositiveInt,
        default=1000,
        help="data that the final figures are taken on",
    )
    add("--seed", type=Seed, default=0, help="of all random numbers")
    add("--device", type=str, default="cpu", help="where to compute, such as cuda")
    add("--out", type=str, default="runs/latest", help="the run folder")
    add("--overwrite", type=bool, default=False, help="replace a run that is already there")
    add("--quiet", type=bool, default=False, help="no progress bar")


def compare_parser() -> ArgumentParser:
    """The arguments of ``bayesvae compare``."""
    parser = Parser(
        exit_on_error=False,
        description="Take log p(x) - ELBO of a run apart: what the family costs and what "
        "amortization costs, on training and unseen data.",
        epilog="Example: bayesvae compare runs/mixture --limit 500",
    )
    add = parser.add_argument
    add("run", type=str, help="the run folder")
    add("--limit", type=PositiveInt, default=300, help="data of each split")
    add("--particles", type=PositiveInt, default=200, help="draws for each bound")
    add("--evidence-particles", type=PositiveInt, default=1000, help="draws for log p(x)")
    add("--seed", type=Seed, default=0, help="of all random numbers")
    add("--data-root", type=str | None, help="folder of MNIST, if it is not where it was")
    add(
        "--trust",
        type=bool,
        default=False,
        help="import (and so run) classes from outside the package that the config names",
    )
    add("--device", type=str, default="cpu", help="where to compute, such as cuda")
    add("--quiet", type=bool, default=False, help="no progress bar")
    return parser
