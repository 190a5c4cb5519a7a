"""Loaders that yield ``(x, index)`` from tensors, data sets and other loaders.

``x`` is a batch ``(B, *event)`` and ``index`` ``(B,)`` the int64 positions of its rows in the data
set, by which a guide with free parameters for each datum finds its row. Positions are attached
before a sampler or a collate function can lose them.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bayesvae.data.mapped import Mapped, map_of


class Loader:
    """Batches of data in memory or mapped from disk, sliced or gathered rather than collated.

    Iterating yields ``(x, index)`` on the device of the data; each pass is a new epoch. With
    neither `shuffle` nor `transform` a batch of a tensor is a view: changing it changes the data.
    Of data on disk one batch at a time is read, and checked then.

    Args:
        x: Data of shape ``(N, *event)``; the dtype of a tensor is kept.
        batch_size: Data per batch; the last batch takes what remains.
        shuffle: Draw a permutation from torch's global CPU stream for each epoch.
        transform: Applied to each batch as it is served, such as `torch.bernoulli` for dynamic
            binarisation (for which the range of `x` is checked once, here).
        drop_last: Leave out a last batch that is not full.
        positions: Positions ``(N,)`` of the rows in a larger data set, if `x` is a part of one.

    Attributes:
        size: Number of data N, also with `drop_last`.
        positioned: Whether the positions were given.

    Raises:
        TypeError: If `x` is neither a tensor nor `Mapped`.
        ValueError: If `x` is empty, not finite, or fewer than one batch under `drop_last`; if
            there is not one position a datum.

    Example:
        >>> batches = Loader(torch.arange(5.0), batch_size=2)
        >>> [(x.tolist(), index.tolist()) for x, index in batches]
        [([0.0, 1.0], [0, 1]), ([2.0, 3.0], [2, 3]), ([4.0], [4])]
    """

    def __init__(
        self,
        x: Tensor | Mapped,
        batch_size: int = 128,
        shuffle: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        drop_last: bool = False,
        positions: Tensor | None = None,
    ) -> None:
        if not isinstance(x, Tensor | Mapped):
            raise TypeError(f"Loader needs a tensor; got {type(x).__name__}. Use loader(...).")
        self.x, self.size = x, len(x) if x.ndim and x.shape.numel() else 0
        _check_sizes(self.size, batch_size, drop_last)
        if isinstance(x, Mapped):
            transform = _checked(transform) if transform in _BINARISING else transform
        else:
            _check_finite(x)
            if transform in _BINARISING:
                check_grey_levels(x)
        self.batch_size, self.shuffle = batch_size, shuffle
        self.transform, self.drop_last = transform, drop_last
        self.positioned = positions is not None
        self.positions = (
            torch.arange(self.size, device=x.device) if positions is None else positions
        )
        if self.positions.shape != (self.size,) or self.positions.is_floating_point():
            raise ValueError(
                f"Loader needs one whole-number position a datum, ({self.size},); got "
                f"{self.positions.dtype} of shape {tuple(self.positions.shape)}."
            )
        if self.positioned and (positions.min() < 0 or len(positions.unique()) < self.size):
            raise ValueError(
                "Positions must be distinct and at least 0; got some that are not. If they are "
                "labels, pass x alone."
            )

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Drawn on the CPU: one seed gives one order of the data on every device.
        order = torch.randperm(self.size).to(self.x.device) if self.shuffle else None
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            part = part if order is None else order[part]
            # index_select is several times faster than indexing by a tensor.
            whole = isinstance(self.x, Tensor) and isinstance(part, Tensor)
            x = self.x.index_select(0, part) if whole else self.x[part]
            index = self.positions[part]
            x = x.read() if isinstance(x, Mapped) else x
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
        sampler = getattr(source.batch_sampler, "sampler", None)
        subset = isinstance(sampler, torch.utils.data.SubsetRandomSampler)
        self.source, self.positioned = source, subset
        self.size = len(sampler.indices) if subset else len(source.dataset)
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


Source: TypeAlias = (
    Tensor
    | Mapped
    | tuple[Tensor | Mapped, Tensor]
    | np.ndarray
    | Dataset
    | DataLoader
    | Loader
    | _DatasetLoader
)


def loader(data: Source, batch_size: int = 128, shuffle: bool = False) -> Loader | _DatasetLoader:
    """Return batches ``(x, index)`` of any usual source of data, without labels.

    Args:
        data: A tensor or array ``(N, *event)``, whose dtype is kept; `Mapped`, or an array that
            is a memory-mapped file, of which only batches are read; a part of a data set as
            ``(x, positions)``; a map-style `Dataset`; or a `DataLoader` or `Loader`, each with a
            batch size and order of its own. Of items that are tuples, the first entry is kept.
        batch_size: Data per batch, where `data` does not say.
        shuffle: Draw a new order for each epoch, where `data` does not say.

    Returns:
        A re-iterable with `size`, the number N of data that it serves in an epoch (also where
        the last ones are dropped), ``len``, the number of batches, and `batch_size` (None where
        a batch sampler does not say). What this function returned, and a `Loader`, come back as
        they are.

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
    if isinstance(data, np.ndarray) and map_of(data):
        data = Mapped(data)
    elif isinstance(data, np.ndarray):
        # Copies only what torch cannot share: read-only memory and negative strides.
        data = torch.from_numpy(np.require(data, requirements=["C", "W"]))
    if isinstance(data, Tensor | Mapped):
        return Loader(data, batch_size, shuffle)
    if type(data) is tuple and [isinstance(d, Tensor | Mapped) for d in data] == [True, True]:
        return Loader(data[0], batch_size, shuffle, positions=data[1])
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
        order = sorted(map(int, sampler.indices)) if subset else range(len(source.source.dataset))
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
        Of data on disk these rows are read, and no others.

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


def dynamic_binarisation(x: Tensor) -> Tensor:
    """Draw grey levels anew at each call, for a loader's ``transform``.

    ``torch.bernoulli`` to within 2^-17 of each probability (zero and one exactly), in an eighth of
    the time on a CPU: most of it goes into random bits, and sixteen of them decide a level.

    Args:
        x: Grey levels in [0, 1], of any shape.

    Returns:
        Zeros and ones of the shape, dtype and device of `x`.

    Example:
        >>> dynamic_binarisation(torch.tensor([0.0, 1.0, 1.0]))
        tensor([0., 1., 1.])
    """
    if not x.is_cpu or x.dtype not in (torch.float32, torch.float64):
        return (torch.rand_like(x) < x).to(x.dtype)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device="cpu")
    words.random_(-(2**63), None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape).to(x.dtype)
    # drawn + 1/2 is uniform on the middles of 2^16 equal parts of (-2^15, 2^15).
    return torch.sub(x * 2**16 - (2**15 + 0.5), drawn).gt_(0)


_BINARISING = (torch.bernoulli, dynamic_binarisation)


def _checked(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def checked(x: Tensor) -> Tensor:
        check_grey_levels(x)
        return transform(x)

    return checked


def check_grey_levels(x: Tensor) -> None:
    """Refuses to binarise anything but floating-point grey levels in [0, 1].

    Raises:
        TypeError: for data on disk, which cannot be looked through.
        ValueError: for other types and values.
    """
    if isinstance(x, Mapped):
        raise TypeError(
            "Binarising once for all needs data in memory; got Mapped. Binarise each batch as it "
            "is served, by Loader(x, transform=torch.bernoulli), or a part: x[:1000].read()."
        )
    low, high = torch.aminmax(x)
    if not (x.is_floating_point() and low >= 0 and high <= 1):
        raise ValueError(
            f"Binarisation needs floating-point grey levels in [0, 1]; got {x.dtype} from {low} "
            f"to {high}. Divide by the largest level, as in x / 255 or Mapped(x, divide=255)."
        )


def _check_map_style(dataset: Any) -> None:
    positions = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not positions or isinstance(dataset, torch.utils.data.IterableDataset | tuple):
        raise TypeError(
            f"A loader needs a tensor, an array, or a data set with __getitem__ and __len__; got "
            f"{type(dataset).__name__}. Gather iterable-style data by torch.stack(list(data)); of "
            f"Splits pass the part, as in splits.train."
        )
