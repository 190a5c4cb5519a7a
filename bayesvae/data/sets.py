r"""Real data sets with fixed splits, and the binarisation of grey levels.

Grey levels :math:`g \in [0, 1]` become binary data :math:`x \sim Bernoulli(g)` once for all by
`static_binarisation` ("On the Quantitative Analysis of Deep Belief Networks" (Salakhutdinov and
Murray, 2008)), or afresh for each batch served by ``Loader(g, transform=torch.bernoulli)``
("Importance Weighted Autoencoders" (Burda et al., 2016)). Fresh draws augment the data: the
log-likelihoods of the two are not comparable.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.arrays import BROKEN, load_npz
from bayesvae.data.loaders import check_grey_levels
from bayesvae.data.raw import permutation
from bayesvae.data.splits import Splits


def digits() -> Splits:
    """Return scikit-learn's 1,797 handwritten digits, which need no download.

    Returns:
        1,437 training and 360 test images of event shape ``(1, 8, 8)`` in 17 grey levels, split
        the same way everywhere.

    Example:
        >>> digits().test.shape, digits().test.max().item()
        (torch.Size([360, 1, 8, 8]), 1.0)
    """
    # Imported late: it takes a second that the loaders can do without.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = permutation(len(bunch.images))
    x = torch.from_numpy(bunch.images[order]).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target[order]).long()
    return Splits(x[:1437], x[1437:], labels[:1437], labels[1437:])


def frey_faces(root: str | os.PathLike | None = None) -> Splits:
    """Return the 1,965 frames of Brendan Frey's face, 28 high and 20 wide.

    There is no official split: frames are shuffled, and the last 200 are for testing, as is
    customary; another 200 are by `Splits.hold_out`. Neighbours in time are alike, so that every
    test frame has its like in training.

    Args:
        root: Folder above ``frey_faces/frey_faces.npz``, which holds the bytes `images`
            ``(1965, 28, 20)``; by default as `mnist`. There is no download.

    Returns:
        1,765 training and 200 test images of event shape ``(1, 28, 20)`` in 256 grey levels.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is truncated or corrupt.

    Example::

        frey_faces().test.shape  # torch.Size([200, 1, 28, 20])
    """
    source = (
        "the Matlab file of S. Roweis' page of data, https://cs.nyu.edu/~roweis/data.html, holds "
        "them as columns of 560 bytes; save them as images, uint8 (1965, 28, 20)"
    )
    arrays = _archive(data_root(root) / "frey_faces" / "frey_faces.npz", ("images",), source)
    images = arrays["images"]
    x = _grey(images[permutation(len(images))])
    return Splits(x[:-200], x[-200:])


def omniglot(root: str | os.PathLike | None = None) -> Splits:
    """Return Omniglot, 1,623 characters of 50 alphabets drawn by 20 people each.

    The drawings of 15 people are for training and those of the other 5 for testing, which are as
    many as in the split of "Importance Weighted Autoencoders" (Burda et al., 2016), but not the
    same, and resized in another way: log-likelihoods compare only roughly.

    Args:
        root: Folder above ``omniglot/omniglot_28x28.npz``, which holds the bytes `images`
            ``(32460, 28, 28)``, ink 255, with the `alphabet` and `drawer` of each, and
            `alphabet_names`; by default as `mnist`. There is no download.

    Returns:
        24,345 training and 8,115 test images of event shape ``(1, 28, 28)`` in 256 grey levels,
        shuffled, and their alphabets.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is truncated or corrupt.

    Example::

        omniglot().train.shape  # torch.Size([24345, 1, 28, 28])
    """
    source = (
        "the drawings are at https://github.com/brendenlake/omniglot (images_background and "
        "images_evaluation); invert them, resize them to 28 x 28, and save them as images, with "
        "alphabet, drawer (0 to 19) and alphabet_names"
    )
    names = ("images", "alphabet", "drawer", "alphabet_names")
    arrays = _archive(data_root(root) / "omniglot" / "omniglot_28x28.npz", names, source)
    order = permutation(len(arrays["images"]))
    known = arrays["drawer"][order] < 15
    train, test = order[known], order[~known]
    x, labels = arrays["images"], torch.from_numpy(arrays["alphabet"].astype(np.int64))
    alphabets = tuple(arrays["alphabet_names"].tolist())
    return Splits(
        _grey(x[train]), _grey(x[test]), labels[train], labels[test], label_names=alphabets
    )


def data_root(root: str | os.PathLike | None) -> Path:
    """The folder of data sets: the argument, else BAYESVAE_DATA, else a cache of the user's."""
    return Path(root or os.environ.get("BAYESVAE_DATA") or "~/.cache/bayesvae").expanduser()


def _archive(path: Path, names: tuple[str, ...], source: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Put it there, or set BAYESVAE_DATA or --data-root to a folder "
            f"that has {path.parent.name}/{path.name}; {source}."
        )
    try:
        return load_npz(path, names)
    except BROKEN as error:
        raise ValueError(
            f"{path} needs the arrays {', '.join(names)}; got a truncated or other file "
            f"({str(error) or type(error).__name__}). Copy it anew."
        ) from error


def _grey(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float().div_(255).unsqueeze(1)


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
