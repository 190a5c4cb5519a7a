"""Data sets, binarisation, and loaders that know where each datum came from.

`sets` and `vision` have data by name, `synthetic` makes some whose truth is known, `files` reads a
user's own (`arrays`, `tables`, `image_folders`; `raw` makes `Splits` of them).  `loaders` serves
any of them as batches ``(x, index)``, `mapped` those that stay on disk.  A new set or kind of file
goes to one of these.  It imports nothing of the package.
"""

from bayesvae.data.describe import Description, describe
from bayesvae.data.files import read, read_rows
from bayesvae.data.loaders import Loader, Source, dynamic_binarisation, loader, rows, sequential
from bayesvae.data.mapped import Mapped
from bayesvae.data.sets import digits, frey_faces, omniglot, static_binarisation
from bayesvae.data.splits import Splits
from bayesvae.data.synthetic import Synthetic, curve, mixture, ppca, shapes
from bayesvae.data.vision import TORCHVISION, fashion_mnist, from_torchvision, mnist

__all__ = [
    "TORCHVISION",
    "Description",
    "Loader",
    "Mapped",
    "Source",
    "Splits",
    "Synthetic",
    "curve",
    "describe",
    "digits",
    "dynamic_binarisation",
    "fashion_mnist",
    "frey_faces",
    "from_torchvision",
    "loader",
    "mixture",
    "mnist",
    "omniglot",
    "ppca",
    "read",
    "read_rows",
    "rows",
    "sequential",
    "shapes",
    "static_binarisation",
]
