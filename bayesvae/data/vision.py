"""Sets of images by torchvision, which knows where they are and how to read their files.

All come as grey levels or colours in [0, 1], channels first, in the split of their authors. They
lie where torchvision puts them, so that what other programs have downloaded is found.
"""

from __future__ import annotations

import os
import pickle
import socket
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.sets import data_root
from bayesvae.data.splits import Splits


class _Set(NamedTuple):
    """A class of torchvision, where its files lie, and its arguments for either part."""

    kind: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    split: str = ""

    def arguments(self, train: bool) -> dict[str, Any]:
        if self.kind == "SVHN":
            return {"split": "train" if train else "test"}
        return {"train": train, **({"split": self.split} if self.split else {})}


def _idx(kind: str, train: str = "train", test: str = "t10k", split: str = "") -> _Set:
    names = [(f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in (train, test)]
    return _Set(kind, f"{kind}/raw", *names, split)


_SETS = {
    "mnist": _idx("MNIST"),
    "fashion-mnist": _idx("FashionMNIST"),
    "kmnist": _idx("KMNIST"),
    "qmnist": _Set(
        "QMNIST",
        "QMNIST/raw",
        ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
        ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
    ),
    **{
        f"emnist-{split}": _idx("EMNIST", f"emnist-{split}-train", f"emnist-{split}-test", split)
        for split in ("balanced", "byclass", "bymerge", "digits", "letters")
    },
    "usps": _Set("USPS", "", ("usps.bz2",), ("usps.t.bz2",)),
    "cifar10": _Set(
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "batches.meta"),
        ("test_batch",),
    ),
    "cifar100": _Set("CIFAR100", "cifar-100-python", ("train", "meta"), ("test",)),
    "svhn": _Set("SVHN", "", ("train_32x32.mat",), ("test_32x32.mat",)),
}

TORCHVISION = tuple(name for name in _SETS if name not in ("mnist", "fashion-mnist"))


def from_torchvision(
    name: str, root: str | os.PathLike | None = None, *, download: bool = True
) -> Splits:
    """Return one of torchvision's sets of images, downloaded if need be.

    Args:
        name: One of "kmnist", "qmnist" (its 60,000 test digits), "emnist-letters" and the other
            splits of EMNIST ("-balanced", "-byclass", "-bymerge", "-digits"), "usps", "cifar10",
            "cifar100", "svhn" (without the extra images); also "mnist" and "fashion-mnist".
        root: Folder where torchvision keeps it, such as the one above ``KMNIST/raw`` or
            ``cifar-10-batches-py``; by default as `mnist`.
        download: Whether to ask the network for files that are not there.

    Returns:
        Images of event shape ``(1, H, W)`` or ``(3, H, W)`` in 256 levels, their classes, and the
        classes' names where torchvision has them. Images of EMNIST stand upright.

    Raises:
        FileNotFoundError: As `mnist`.
        ValueError: As `mnist`, or if there is no such set.

    Example::

        from_torchvision("cifar10").train.shape  # torch.Size([50000, 3, 32, 32])
    """
    known = _SETS.get(name.lower().replace("_", "-"))
    if known is None:
        raise ValueError(f"There is no set {name!r}; there are {', '.join(_SETS)}.")
    root = data_root(root)
    folder = root / known.folder
    files = [*known.train, *known.test]
    if not all((folder / file).is_file() for file in files):
        if not download:
            raise FileNotFoundError(
                f"{known.kind} needs {', '.join(files)} in {folder}, and may not ask the network "
                f"for them here. Name the data yourself with --data {name}, or set BAYESVAE_DATA "
                f"or --data-root to a folder that has {known.folder or 'them'}."
            )
        _download(known, root, f"{', '.join(files)} in {folder}")
    train, train_labels, names = _read(known, root, train=True)
    test, test_labels, _ = _read(known, root, train=False)
    return Splits(train, test, train_labels, test_labels, label_names=names)


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
    return from_torchvision("mnist", root)


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
    return from_torchvision("fashion-mnist", root)


def _dataset(known: _Set, root: Path, train: bool, download: bool = False) -> Any:
    # Imported late: it takes a second that the loaders can do without.
    import torchvision

    kind = getattr(torchvision.datasets, known.kind)
    return kind(root, download=download, **known.arguments(train))


def _download(known: _Set, root: Path, wanted: str) -> None:
    # torchvision sets no timeout, so only the process-wide one ends the wait for a silent mirror.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5.0)
    try:
        for train in (True, False):
            _dataset(known, root, train, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise FileNotFoundError(
            f"{known.kind} needs {wanted}; they are not there and the download failed "
            f"({' '.join(str(error).split()) or type(error).__name__}). Put them there, or set "
            f"BAYESVAE_DATA or --data-root to a folder that has {known.folder or 'them'}."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


# All that torchvision's readers throw at bytes that are not what they should be.
_BROKEN = (AssertionError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_BROKEN += (pickle.UnpicklingError,)


def _read(known: _Set, root: Path, train: bool) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    files = [str(root / known.folder / file) for file in (known.train if train else known.test)]
    try:
        # The files of CIFAR are pickles; torchvision unpickles none but those whose MD5 it knows.
        part = _dataset(known, root, train)
        labels = torch.as_tensor(part.labels if known.kind == "SVHN" else part.targets).long()
        if len(part.data) != len(labels):
            raise ValueError(f"{len(part.data)} images but {len(labels)} labels")
    except _BROKEN as error:
        raise ValueError(
            f"{known.kind} needs whole files; got truncated or corrupt ones among "
            f"{', '.join(files)} ({str(error) or 'wrong length'}). Delete them and load again, or "
            f"copy them anew."
        ) from error
    # The further columns of QMNIST say who wrote a digit, and where.
    labels = labels if labels.ndim == 1 else labels[:, 0]
    # torchvision calls a digit "7 - seven".
    names = tuple(name.partition(" - ")[0] for name in getattr(part, "classes", ()))
    return _images(known, part.data), labels, names


def _images(known: _Set, pixels: Tensor | np.ndarray) -> Tensor:
    x = torch.as_tensor(pixels)
    if known.kind == "EMNIST":
        x = x.transpose(1, 2)
    if known.kind.startswith("CIFAR"):
        x = x.movedim(-1, 1)
    return (x.unsqueeze(1) if x.ndim == 3 else x).contiguous().float().div_(255)
