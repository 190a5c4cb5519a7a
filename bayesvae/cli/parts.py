"""The parts that a pair is made of, by name: the package's short ones, a user's by import path.

Parts are given by class with arguments of their own, as in ``--prior Mixture --prior.components
20`` or ``--prior mymodule.MyPrior --prior.df 3``; a user's module is looked for in the current
folder too.  Whatever only the data can tell (shapes, the number of latents, networks) is supplied
by `bayesvae.cli.build`, so those arguments are not asked for.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from bayesvae import families, guides, likelihoods, networks, pairs, priors
from bayesvae.cli.mistakes import nearest


class Part(NamedTuple):
    """One place in a pair that a class fills.

    Attributes:
        home: the folder that offers the package's own classes for it.
        base: what a class must be.
        supplied: constructor arguments that the program fills in.
        what: the place in words.
        absent: one of the home's classes that has no place here.
        only: the home's classes that have a place here, if not all others.
    """

    home: ModuleType
    base: type
    supplied: frozenset[str]
    what: str
    absent: str = ""
    only: tuple[str, ...] = ()

    @property
    def classes(self) -> dict[str, type]:
        """The package's own classes for this place, by name."""
        found = classes(self.home, self.base)
        return {
            name: each
            for name, each in found.items()
            if name != self.absent and name in (self.only or found)
        }


_NETWORK = frozenset({"inputs", "image", "outputs", "output_bias"})

PARTS = {
    "prior": Part(
        priors, nn.Module, frozenset({"dim", "encoder", "data", "constraint"}), "p(z), on top"
    ),
    "likelihood": Part(likelihoods, nn.Module, frozenset({"network", "start"}), "p(x | z)"),
    "family": Part(families, families.Family, frozenset({"dim"}), "q(z)"),
    "guide": Part(
        guides,
        nn.Module,
        frozenset({"network", "family", "size", "site", "model"}),
        "where the parameters of q come from",
    ),
    "encoder": Part(
        networks, nn.Module, _NETWORK, "network from x to the parameters of q", "ConvDecoder"
    ),
    "decoder": Part(
        networks, nn.Module, _NETWORK, "network from z to those of p(x | z)", "ConvEncoder"
    ),
    "pair": Part(
        pairs,
        nn.Module,
        frozenset({"event", "latent", "data", "size", "weight", "loc", "scale"}),
        "instead of all parts above: a class with programs `model` and `guide`",
        only=("PPCA",),
    ),
}
_INNER = {"prior.family": families}
_OWN = re.compile(
    r"bayesvae\.(priors|likelihoods|families|guides|networks|pairs(\.linear)?)\.[A-Z]\w*"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
)


def is_own(path: str) -> bool:
    """Whether an import path is that of a part of this package, or of a network of torch's."""
    return _OWN.fullmatch(path) is not None


def classes(home: ModuleType, base: type = object) -> dict[str, type]:
    """The concrete classes that a folder of parts offers, by name."""
    offered = ((name, getattr(home, name)) for name in home.__all__)
    return {
        name: value
        for name, value in offered
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }


class Words(NamedTuple):
    """A command line, with what it names.

    Attributes:
        full: its words, class names of the package written as import paths.
        named: the user's classes on it, by part.
    """

    full: list[str]
    named: dict[str, type]


def with_full_names(words: Sequence[str]) -> Words:
    """A command line with class names of the package written as import paths.

    Raises:
        ValueError: for a name that is none of the package's and no class that can be imported.

    Example:
        >>> with_full_names(["--prior", "Mixture", "--epochs=3"]).full
        ['--prior', 'bayesvae.priors.Mixture', '--epochs=3']
    """
    full, named, expects = [], {}, None
    for word in words:
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").removesuffix(".help")
        if expects is not None and not word.startswith("-"):
            full.append(_full_name(expects, word, named))
            expects = None
        elif option.startswith("--") and (key in PARTS or key in _INNER):
            full.append(f"{option}={_full_name(key, value, named)}" if equals else word)
            expects = None if equals else key
        else:
            full.append(word)
            expects = None
    return Words(full, named)


def _full_name(key: str, name: str, named: dict[str, type]) -> str:
    home = PARTS[key].home if key in PARTS else _INNER[key]
    known = PARTS[key].classes if key in PARTS else classes(home)
    if "." in name:
        if not name.startswith(("bayesvae.", "torch.")):
            named[key] = imported(name, f"--{key}", PARTS[key].base if key in PARTS else object)
        return name
    if name not in known:
        raise ValueError(
            f"--{key} takes one of {', '.join(sorted(known))}, or an import path such as "
            f"mymodule.MyClass; got {name!r}.{nearest(name, known)}"
        )
    return f"{home.__name__}.{name}"


def look_here() -> None:
    """Lets modules be found in the current folder, after all others."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def imported(path: str, option: str, base: type) -> type:
    """The class at an import path; its module is also looked for in the current folder.

    Raises:
        ValueError: if there is no such module or class, its module does not run, or the class is
            of another kind.
    """
    module, _, name = path.rpartition(".")
    look_here()
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{option} needs a module that can be imported; got {path}: {error}. Put "
            f"{module.split('.')[0]}.py into the current folder, or install it."
        ) from error
    except Exception as error:  # a user's module can break in any way
        raise ValueError(
            f"{option} needs a module that runs; importing {module} stopped with "
            f"{type(error).__name__}: {error}. Mend it."
        ) from error
    if not inspect.isclass(found) or not issubclass(found, base):
        what = "nothing" if found is None else f"{getattr(found, '__name__', found)!s}"
        raise ValueError(
            f"{option} needs a class that is a {base.__module__.split('.')[0]} "
            f"{base.__name__}; found {what} at {path}. Name such a class."
        )
    return found


class Argument(NamedTuple):
    """One of a class's own arguments.

    Attributes:
        name: its name.
        default: its default, as text; None if it has to be given.
        text: the first sentence of its description, empty where there is none.
    """

    name: str
    default: str | None
    text: str


def own_arguments(part: type, key: str) -> Iterator[Argument]:
    """The constructor arguments of a class that the command line asks for."""
    texts = described(part)
    for name, parameter in inspect.signature(part).parameters.items():
        if name in PARTS[key].supplied or parameter.kind in (2, 4):
            continue
        default = parameter.default
        shown = None if default is parameter.empty else _shown(default)
        yield Argument(name, shown, texts.get(name, ""))


def _shown(default: Any) -> str:
    return default.__name__ if inspect.isclass(default) else str(default)


def described(part: type) -> dict[str, str]:
    """What the docstring of a class says of its arguments, by name."""
    section = (inspect.getdoc(part) or "").partition("Args:\n")[2].split("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: _plain(text) for name, text in found}


def summary(part: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return _plain((inspect.getdoc(part) or "no description").split("\n\n")[0])


def _plain(text: str) -> str:
    """Words of a docstring on one line, without its marks of code."""
    return " ".join(text.replace("`", "").split())
