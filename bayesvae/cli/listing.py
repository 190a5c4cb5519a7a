"""``bayesvae list``: what the package has by name."""

import textwrap
from collections.abc import Iterator

from jsonargparse import Namespace

from bayesvae import pairs
from bayesvae.cli.mistakes import nearest
from bayesvae.cli.parts import PARTS, classes, summary
from bayesvae.cli.source import DATA_SETS

_PAIRS = {
    "vae": "--latent 8",
    "hierarchical": "--latent 8 4",
    "ppca": "--pair PPCA",
}
"""How each pair of the package is asked for."""

_KINDS = {
    "priors": "prior",
    "likelihoods": "likelihood",
    "families": "family",
    "guides": "guide",
    "networks": "encoder",
}


def run_list(options: Namespace) -> None:
    """Prints the names of one kind, or of all.

    Raises:
        ValueError: for a kind that there is not.
    """
    kinds = ["data", *_KINDS, "pairs"]
    if options.what not in (None, *kinds):
        meant = nearest(options.what, kinds)
        raise ValueError(f"list takes one of {', '.join(kinds)}; got {options.what}.{meant}")
    for kind in kinds if options.what is None else [options.what]:
        print(f"{kind}:")
        rows = list(_rows(kind))
        width = max(20, *(len(name) for name, _ in rows))
        for name, text in rows:
            print(f"  {name:{width}}  {textwrap.shorten(text, 100, placeholder=' ...')}")
        print()


def _rows(kind: str) -> Iterator[tuple[str, str]]:
    if kind == "data":
        yield from ((name, each.summary) for name, each in DATA_SETS.items())
        yield "PATH", "a .npy, .npz, .pt, .csv or .tsv file, or a folder of images"
    elif kind == "pairs":
        for name, words in _PAIRS.items():
            yield f"{name} ({words})", summary(getattr(pairs, name))
        yield "mymodule.MyPair", "your class with programs `model` and `guide`, by --pair"
    else:
        part = PARTS[_KINDS[kind]]
        found = classes(part.home, part.base)
        yield from ((name, summary(each)) for name, each in found.items())
        yield "mymodule.MyClass", f"your own, by --{_KINDS[kind]}"
