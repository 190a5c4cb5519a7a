r"""Data sets, binarisation, and loaders that know where each datum came from.

A loader yields ``(x, index)``: a batch ``x (B, *event)`` and the int64 positions ``index (B,)`` of
its rows in the data set, by which a guide with free parameters for each datum finds its row.
Positions are attached before a sampler or a collate function can lose them.

Grey levels :math:`g \in [0, 1]` become binary data :math:`x \sim Bernoulli(g)` once for all by
`static_binarisation` ("On the Quantitative Analysis of Deep Belief Networks" (Salakhutdinov and
Murray, 2008)), or afresh for each batch served by ``Loader(g, transform=torch.bernoulli)``
("Importance Weighted Autoencoders" (Burda et al., 2016)). Fresh draws augment the data: the
log-likelihoods of the two are not comparable.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


class Splits(NamedTuple):
    """A data set in its fixed training and test part.

    Attributes:
        train: Grey levels in [0, 1], float32 of shape ``(N, *event)``.
        test: Likewise, ``(M, *event)``.
        train_labels: Classes, int64 of shape ``(N,)``.
        test_labels: Likewise, ``(M,)``.

    Example:
        >>> digits().train.shape
        torch.Size([1437, 1, 8, 8])
    """

    train: Tensor
    test: Tensor
    train_labels: Tensor
    test_labels: Tensor

    def hold_out(self, fraction: float) -> tuple[Tensor, Tensor]:
        """Split the last rows of `train` off for validation.

        Nothing needs shuffling: `digits` are shuffled already, and the files of `mnist` and
        `fashion_mnist` have their classes mixed (customary: the last sixth, 10,000 images).

        Args:
            fraction: Share of the N training data to hold out, rounded to V whole data.

        Returns:
            Views of shape ``(N - V, *event)`` for training and ``(V, *event)`` for validation.

        Raises:
            ValueError: If one of the two would be empty.

        Example:
            >>> [len(part) for part in digits().hold_out(0.1)]
            [1293, 144]
        """
        held, total = round(fraction * len(self.train)), len(self.train)
        if not 0 < held < total:
            raise ValueError(
                f"hold_out needs a fraction that leaves data on both sides; got {fraction} of "
                f"{total} data. Try 0.1."
            )
        return self.train[:-held], self.train[-held:]


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

    Example:
        >>> mnist().train.shape  # doctest: +SKIP
        torch.Size([60000, 1, 28, 28])
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

    Example:
        >>> fashion_mnist().test.shape  # doctest: +SKIP
        torch.Size([10000, 1, 28, 28])
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
    _check_grey_levels(x)
    return torch.bernoulli(x.cpu(), generator=torch.Generator().manual_seed(seed)).to(x.device)


class Loader:
    """Batches of data that fit into memory, sliced or gathered rather than collated.

    Iterating yields ``(x, index)`` on the device of the data; each pass is a new epoch. With
    neither `shuffle` nor `transform` a batch is a view: changing it changes the data.

    Args:
        x: Data of shape ``(N, *event)``; their dtype is kept.
        batch_size: Data per batch; the last batch takes what remains.
        shuffle: Draw a permutation from torch's global CPU stream for each epoch.
        transform: Applied to each batch as it is served, such as `torch.bernoulli` for dynamic
            binarisation (for which the range of `x` is checked once, here).
        drop_last: Leave out a last batch that is not full.

    Attributes:
        size: Number of data N, also with `drop_last`.

    Raises:
        TypeError: If `x` is not a tensor.
        ValueError: If `x` is empty, not finite, or fewer than one batch under `drop_last`.

    Example:
        >>> batches = Loader(torch.arange(5.0), batch_size=2)
        >>> [(x.tolist(), index.tolist()) for x, index in batches]
        [([0.0, 1.0], [0, 1]), ([2.0, 3.0], [2, 3]), ([4.0], [4])]
    """

    def __init__(
        self,
        x: Tensor,
        batch_size: int = 128,
        shuffle: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        drop_last: bool = False,
    ) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"Loader needs a tensor; got {type(x).__name__}. Use loader(...).")
        self.x, self.size = x, len(x) if x.ndim and x.numel() else 0
        _check_sizes(self.size, batch_size, drop_last)
        _check_finite(x)
        if transform is torch.bernoulli:
            _check_grey_levels(x)
        self.batch_size, self.shuffle = batch_size, shuffle
        self.transform, self.drop_last = transform, drop_last

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Drawn on the CPU: one seed gives one order of the data on every device.
        order = torch.randperm(self.size) if self.shuffle else torch.arange(self.size)
        order = order.to(self.x.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            index = order[part]
            x = self.x[index] if self.shuffle else self.x[part]
            yield (x if self.transform is None else self.transform(x)), index


_KEPT = ("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")
_KEPT += ("generator", "prefetch_factor", "persistent_workers")


class _DatasetLoader:
    """Batches of a torch DataLoader over a map-style data set, with positions for labels."""

    def __init__(
        self, source: DataLoader, batch_sampler: Iterable[list[int]] | None = None
    ) -> None:
        _check_map_style(source.dataset)
        if source.batch_sampler is None:
            raise ValueError(
                "A loader needs a DataLoader that forms batches; got batch_size=None. Give it a "
                "batch_size or a batch_sampler."
            )
        batch_sampler = source.batch_sampler if batch_sampler is None else batch_sampler
        self.source, self.size = source, len(source.dataset)
        self.batch_size: int | None = getattr(batch_sampler, "batch_size", None)
        drop_last = getattr(batch_sampler, "drop_last", False)
        _check_sizes(self.size, self.batch_size or 1, drop_last)
        self._batches = DataLoader(
            _Positioned(source.dataset, source.collate_fn),
            batch_sampler=batch_sampler,
            collate_fn=tuple,
            **{name: getattr(source, name) for name in _KEPT},
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self._batches)


class _Positioned(Dataset):
    """Serves whole batches with their positions, all that a DataLoader with a sampler asks for."""

    def __init__(self, dataset: Dataset, collate: Callable[[list], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(index) if fetch else [self.dataset[i] for i in index]
        if self.collate is default_collate:
            # The labels go first: they need not be of a kind that collates.
            items = [_first(item) for item in items]
        return _first(self.collate(items)), torch.tensor(index, dtype=torch.int64)


def _first(item: Any) -> Tensor:
    x = item[0] if isinstance(item, tuple | list) else item
    if not isinstance(x, Tensor):
        raise TypeError(
            f"A data set needs items that are tensors or tuples that begin with one; got "
            f"{type(x).__name__}. Give it transform=torchvision.transforms.ToTensor(), or convert "
            f"the items by torch.as_tensor."
        )
    return x


Source: TypeAlias = Tensor | np.ndarray | Dataset | DataLoader | Loader | _DatasetLoader


def loader(data: Source, batch_size: int = 128, shuffle: bool = False) -> Loader | _DatasetLoader:
    """Return batches ``(x, index)`` of any usual source of data, without labels.

    Args:
        data: A tensor or array ``(N, *event)``, whose dtype is kept; a map-style `Dataset`; or a
            `DataLoader` or `Loader`, each with a batch size and order of its own. Of items that
            are tuples, the first entry is kept.
        batch_size: Data per batch, where `data` does not say.
        shuffle: Draw a new order for each epoch, where `data` does not say.

    Returns:
        A re-iterable with `size`, the number N of data in the data set, ``len``, the number of
        batches, and `batch_size` (None where a batch sampler does not say). What this function
        returned, and a `Loader`, come back as they are.

    Raises:
        TypeError: If `data` is none of these, or iterable-style.
        ValueError: If `data` is empty or not finite, or `batch_size` below one.

    Example:
        >>> x, index = next(iter(loader(np.eye(3), batch_size=2)))
        >>> x.shape, index.tolist()
        (torch.Size([2, 3]), [0, 1])
    """
    if isinstance(data, Loader | _DatasetLoader):
        return data
    if isinstance(data, DataLoader):
        return _DatasetLoader(data)
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors[0]
    if isinstance(data, np.ndarray):
        # Copies only what torch cannot share: read-only memory and negative strides.
        data = torch.from_numpy(np.require(data, requirements=["C", "W"]))
    if isinstance(data, Tensor):
        return Loader(data, batch_size, shuffle)
    _check_map_style(data)
    _check_sizes(len(data), batch_size)
    return _DatasetLoader(DataLoader(data, batch_size, shuffle))


def sequential(data: Source, batch_size: int | None = None) -> Loader | _DatasetLoader:
    """Return batches ``(x, index)`` that visit each datum once and in order, for evaluation.

    Args:
        data: As `loader`. Transforms and the choice of a `SubsetRandomSampler` are kept; any other
            order, and `drop_last`, are not.
        batch_size: Data per batch; by default that of `data`, or 128 where it has none.

    Returns:
        As `loader`.

    Raises:
        TypeError: As `loader`.
        ValueError: As `loader`.

    Example:
        >>> train = loader(torch.arange(5.0), batch_size=2, shuffle=True)
        >>> [index.tolist() for _, index in sequential(train, batch_size=4)]
        [[0, 1, 2, 3], [4]]
    """
    source = loader(data, 128 if batch_size is None else batch_size)
    batch_size = (source.batch_size or 128) if batch_size is None else batch_size
    _check_sizes(source.size, batch_size)
    if isinstance(source, _DatasetLoader):
        sampler = getattr(source.source.batch_sampler, "sampler", None)
        subset = isinstance(sampler, torch.utils.data.SubsetRandomSampler)
        order = sorted(map(int, sampler.indices)) if subset else range(source.size)
        batches = torch.utils.data.BatchSampler(order, batch_size, drop_last=False)
        return _DatasetLoader(source.source, batches)
    # A copy, for the constructor would read all data again to see that they are finite.
    source = copy.copy(source)
    source.batch_size, source.shuffle, source.drop_last = batch_size, False, False
    return source


def rows(data: Source, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the first data as one pair ``(x, index)``, for evaluators that need them together.

    Args:
        data: As `loader`. A transform is applied: dynamic binarisation draws at each call.
        limit: Number of data L to return; all if None or more than there are.

    Returns:
        Data ``(L, *event)`` and positions ``(L,)``; views of data in memory without a transform.

    Raises:
        TypeError: As `loader`.
        ValueError: As `loader`, or if `limit` is below one.

    Example:
        >>> rows(torch.arange(10.0), limit=2)
        (tensor([0., 1.]), tensor([0, 1]))
    """
    if limit is not None and limit < 1:
        raise ValueError(f"rows needs limit >= 1; got {limit}. Use None for all data.")
    source = sequential(data)
    limit = source.size if limit is None else min(limit, source.size)
    if isinstance(source, Loader):
        return next(iter(sequential(source, limit)))
    batches = itertools.islice(source, math.ceil(limit / source.batch_size))
    x, index = (torch.cat(parts)[:limit] for parts in zip(*batches, strict=True))
    return x, index


def _check_sizes(size: int, batch_size: int = 1, drop_last: bool = False) -> None:
    if size < 1 or batch_size < 1 or (drop_last and size < batch_size):
        raise ValueError(
            f"A loader needs N >= 1 data of shape (N, *event) and batch_size >= 1, with drop_last "
            f"also batch_size <= N; got N = {size} and batch_size = {batch_size}. Pass data, or "
            f"another batch_size."
        )


def _check_finite(x: Tensor) -> None:
    if x.is_floating_point() and not torch.stack(torch.aminmax(x)).isfinite().all():
        raise ValueError(
            f"A loader needs finite data; got {int((~x.isfinite()).sum())} values that are NaN or "
            f"infinite. Drop their rows or impute them: x.isfinite() finds them."
        )


def _check_grey_levels(x: Tensor) -> None:
    low, high = torch.aminmax(x)
    if not (x.is_floating_point() and low >= 0 and high <= 1):
        raise ValueError(
            f"Binarisation needs floating-point grey levels in [0, 1]; got {x.dtype} from {low} "
            f"to {high}. Divide by the largest level, as in x / 255."
        )


def _check_map_style(dataset: Any) -> None:
    positions = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not positions or isinstance(dataset, torch.utils.data.IterableDataset | Splits):
        raise TypeError(
            f"A loader needs a tensor, an array, or a data set with __getitem__ and __len__; got "
            f"{type(dataset).__name__}. Gather iterable-style data by torch.stack(list(data)); of "
            f"Splits pass the part, as in splits.train."
        )
