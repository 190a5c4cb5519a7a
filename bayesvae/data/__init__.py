"""Data sets, binarisation, and loaders that know where each datum came from."""

from bayesvae.data.describe import Description, describe
from bayesvae.data.files import read, read_rows
from bayesvae.data.loaders import Loader, Source, loader, rows, sequential
from bayesvae.data.mapped import Mapped
from bayesvae.data.sets import digits, fashion_mnist, mnist, static_binarisation
from bayesvae.data.splits import Splits

__all__ = [
    "Description",
    "Loader",
    "Mapped",
    "Source",
    "Splits",
    "describe",
    "digits",
    "fashion_mnist",
    "loader",
    "mnist",
    "read",
    "read_rows",
    "rows",
    "sequential",
    "static_binarisation",
]
