"""Data sets, binarisation, and loaders that know where each datum came from."""

from bayesvae.data.loaders import Loader, Source, loader, rows, sequential
from bayesvae.data.sets import Splits, digits, fashion_mnist, mnist, static_binarisation

__all__ = [
    "Loader",
    "Source",
    "Splits",
    "digits",
    "fashion_mnist",
    "loader",
    "mnist",
    "rows",
    "sequential",
    "static_binarisation",
]
