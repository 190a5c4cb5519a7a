r"""Real data sets with fixed splits, and the binarisation of grey levels.

Grey levels :math:`g \in [0, 1]` become binary data :math:`x \sim Bernoulli(g)` once for all by
`static_binarisation` ("On the Quantitative Analysis of Deep Belief Networks" (Salakhutdinov and
Murray, 2008)), or afresh for each batch served by ``Loader(g, transform=torch.bernoulli)``
("Importance Weighted Autoencoders" (Burda et al., 2016)). Fresh draws augment the data: the
log-likelihoods of the two are not comparable.
"""

from __future__ import annotations

import os
import socket
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.loaders import check_grey_levels
from bayesvae.data.splits import Splits

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


def digits() -> Splits:
    """Return scikit-learn's 1,797 handwritten digits, which need no download.

    Returns:
        1,437 training and 360 test images of event shape ``(1, 8, 8)`` in 17 grey levels, split
        the same way everywhere.

    Example:
        >>> digits().test.shape, digits().test.max().item()
        (torch.Size([360, 1, 8, 8]), 1.0)
    """
    # Imported late, as torchvision below: each takes a second that the loaders can do without.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The legacy generator: numpy freezes its stream, which it does not for default_rng.
    order = np.random.RandomState(0).permutation(len(bunch.images))
    x = torch.from_numpy(bunch.images[order]).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target[order]).long()
    return Splits(x[:1437], x[1437:], labels[:1437], labels[1437:])


def mnist(root: str | os.PathLike | None = None) -> Splits:
    """Return MNIST, 60,000 + 10,000 handwritten digits, downloaded if need be.

    Args:
        root: Folder above ``MNIST/raw``; by default the environment variable BAYESVAE_DATA,
            without it ``~/.cache/bayesvae``.

    Returns:
        Images of event shape ``(1, 28, 28)`` in 256 grey levels, and their classes.

    Raises:
        FileNotFoundError: If the files are not there and cannot be downloaded to there.
        ValueError: If a file is truncated or corrupt.

    Example::

        mnist().train.shape  # torch.Size([60000, 1, 28, 28])
    """
    import torchvision

    return _idx_images(torchvision.datasets.MNIST, root)


def fashion_mnist(root: str | os.PathLike | None = None) -> Splits:
    """Return Fashion-MNIST, 60,000 + 10,000 pictures of clothes in the format of `mnist`.

    Args:
        root: Folder above ``FashionMNIST/raw``, with the defaults of `mnist`.

    Returns:
        Images of event shape ``(1, 28, 28)`` in 256 grey levels, and their classes.

    Raises:
        FileNotFoundError: As `mnist`.
        ValueError: As `mnist`.

    Example::

        fashion_mnist().test.shape  # torch.Size([10000, 1, 28, 28])
    """
    import torchvision

    return _idx_images(torchvision.datasets.FashionMNIST, root)


def _idx_images(dataset: type[MNIST], root: str | os.PathLike | None) -> Splits:
    root = Path(root or os.environ.get("BAYESVAE_DATA") or "~/.cache/bayesvae").expanduser()
    folder = root / dataset.__name__ / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = [f"{part}-{kind}" for part in ("train", "t10k") for kind in kinds]
    if not all((folder / name).is_file() for name in files):
        _download(dataset, root, f"{', '.join(files)} in {folder}")
    train, train_labels = _read(dataset, root, train=True)
    test, test_labels = _read(dataset, root, train=False)
    return Splits(train, test, train_labels, test_labels)


def _download(dataset: type[MNIST], root: Path, wanted: str) -> None:
    # torchvision sets no timeout, so only the process-wide one ends the wait for a silent mirror.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5.0)
    try:
        dataset(root, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise FileNotFoundError(
            f"{dataset.__name__} needs {wanted}; they are not there and the download failed "
            f"({' '.join(str(error).split()) or type(error).__name__}). Put them there, or set "
            f"BAYESVAE_DATA or --data-root to a folder that has {dataset.__name__}/raw."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _read(dataset: type[MNIST], root: Path, train: bool) -> tuple[Tensor, Tensor]:
    try:
        part = dataset(root, train=train)
        if len(part.data) != len(part.targets):
            raise ValueError(f"{len(part.data)} images but {len(part.targets)} labels")
    # All that torchvision's reader throws at bytes that are not what their header promises.
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        folder = root / dataset.__name__ / "raw"
        raise ValueError(
            f"{dataset.__name__} needs whole IDX files; got truncated or corrupt ones at "
            f"{folder / ('train' if train else 't10k')}-*-ubyte ({str(error) or 'wrong length'}). "
            f"Delete {folder} and load again, or copy the files anew."
        ) from error
    return part.data.float().div_(255).unsqueeze(1), part.targets


def static_binarisation(x: Tensor, seed: int = 0) -> Tensor:
    """Draw each grey level once, so that equal seeds give equal binary data.

    The draw is made on the CPU by a generator of its own: it is the same for data on any device
    and leaves torch's global stream alone.

    Args:
        x: Grey levels in [0, 1], of any shape.
        seed: Names the draw.

    Returns:
        Zeros and ones of the shape, dtype and device of `x`.

    Raises:
        ValueError: If a value lies outside [0, 1].

    Example:
        >>> static_binarisation(torch.tensor([0.0, 1.0, 1.0]))
        tensor([0., 1., 1.])
    """
    check_grey_levels(x)
    return torch.bernoulli(x.cpu(), generator=torch.Generator().manual_seed(seed)).to(x.device)
