"""From arrays as a file has them to `Splits`: shapes, scale, classes, and the split.

Images get their channels first, ``(N, H, W)`` and ``(N, H, W, C)`` becoming ``(N, C, H, W)`` for C
of 1 or 3, and bytes among them become grey levels in [0, 1]. Rows are split by one permutation
that is the same everywhere. Data of more than `IN_MEMORY` bytes are left where they are, `Mapped`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.mapped import Mapped
from bayesvae.data.splits import Splits

IN_MEMORY = 2**30
_LISTED = 8


class Raw(NamedTuple):
    """What a file holds.

    Attributes:
        x: Data ``(N, ...)`` of any type, in memory or mapped.
        labels: Classes ``(N,)``, numbers or words.
        test: Data ``(M, ...)``, if the file itself sets some aside.
        test_labels: Their classes.
        names: Names of the columns.
        label_names: Names of the classes, where `labels` are their numbers.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    test: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()


class _Part(NamedTuple):
    """Some rows of an array with their classes; all of them, in order, if `rows` is None."""

    x: np.ndarray
    labels: Tensor | None
    rows: Tensor | None = None

    def data(self, divide: float | None) -> Tensor | Mapped:
        x = Mapped(self.x, self.rows, divide)
        return x if _is_large(self.x) else x.read()

    def classes(self) -> Tensor | None:
        unchanged = self.labels is None or self.rows is None
        return self.labels if unchanged else self.labels[self.rows]


def to_splits(raw: Raw, where: str, divide: float | None, test: float) -> Splits:
    """Return what a file holds as training and test data.

    Args:
        raw: What it holds.
        where: Its name, for errors.
        divide: As `read`.
        test: As `read`.

    Returns:
        The data in torch's default floating-point type.

    Raises:
        TypeError: If the data are not numbers.
        ValueError: If they are not finite rows, or too few to be split.
    """
    if not 0 <= test < 1:
        raise ValueError(f"test needs a share of the rows in [0, 1); got {test}. Try 0.2.")
    x = _images(_checked(raw.x, where, raw.names))
    divide = 255 if divide is None and _are_bytes(x) else divide
    labels, test_labels, names = _classes(raw, where)
    if raw.test is None:
        train, unseen = _split(_Part(x, labels), test, where)
    else:
        # Ready splits are often sorted by class, of which a held-out end would see but one.
        train = _Part(x, labels, torch.from_numpy(permutation(len(x))) if test else None)
        unseen = _Part(_images(_checked(raw.test, where, raw.names)), test_labels)
        if unseen.x.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"{where} has training data of shape {x.shape} and test data of shape "
                f"{unseen.x.shape}, which do not belong together. Choose one with array=."
            )
    splits = Splits(train.data(divide), None, train.classes(), None, raw.names, names)
    if unseen is None:
        return splits
    return splits._replace(test=unseen.data(divide), test_labels=unseen.classes())


def permutation(size: int) -> np.ndarray:
    """Return the order in which rows are split, the same everywhere.

    Args:
        size: Number of rows N.

    Returns:
        Positions ``(N,)``.

    Example:
        >>> permutation(5)
        array([2, 0, 1, 3, 4])
    """
    # The legacy generator: numpy freezes its stream, which it does not for default_rng.
    return np.random.RandomState(0).permutation(size)


def _split(whole: _Part, test: float, where: str) -> tuple[_Part, _Part | None]:
    if not test:
        return whole, None
    size = len(whole.x)
    if size < 2:
        raise ValueError(f"{where} has {size} row; a split needs 2. Use test=0 for no test part.")
    order, held = torch.from_numpy(permutation(size)), min(max(round(test * size), 1), size - 1)
    return whole._replace(rows=order[:-held]), whole._replace(rows=order[-held:])


def _classes(raw: Raw, where: str) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    if raw.labels is None:
        return None, None, ()
    seen = len(raw.labels)
    both = raw.labels if raw.test_labels is None else np.append(raw.labels, raw.test_labels)
    numbers, words = classes(both, where)
    labels, names = torch.from_numpy(numbers), words or raw.label_names
    names = names if numbers.min() >= 0 and numbers.max() < len(names) else ()
    return labels[:seen], None if raw.test_labels is None else labels[seen:], names


def classes(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return classes as whole numbers, and their names if they were words.

    Args:
        values: Classes ``(N,)``: whole numbers of any type, which are kept, or words, which are
            numbered in alphabetical order.
        where: Their name, for errors.

    Returns:
        int64 numbers ``(N,)``, and names by number.

    Raises:
        ValueError: If they are neither.

    Example:
        >>> classes(np.array(["red", "blue", "red"]), "colours")
        (array([1, 0, 1]), ('blue', 'red'))
    """
    if values.dtype.kind in "US":
        words, numbers = np.unique(values.astype(str), return_inverse=True)
        return numbers.astype(np.int64), tuple(words.tolist())
    if values.dtype.kind not in "biuf" or not (values == np.floor(values)).all():
        raise ValueError(
            f"Labels are classes, whole numbers or words; got {values.dtype} such as "
            f"{values.flat[0]} in {where}. Leave labels= out, or name other ones."
        )
    return values.astype(np.int64), ()


def _checked(array: np.ndarray, where: str, names: tuple[str, ...]) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where} needs real numbers; got {array.dtype}. Convert them.")
    if array.ndim < 2 or not array.size:
        raise ValueError(
            f"{where} needs rows of data, an array (N, D) or (N, ...) that is not empty; got "
            f"shape {array.shape}. A single column has the shape (N, 1)."
        )
    if array.dtype.kind == "f" and not _is_large(array):
        bad = ~np.isfinite(array)
        if bad.any():
            row, *place = (int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{where} needs finite numbers; got {int(bad.sum())} that are NaN or infinite, "
                f"the first in row {row}, {_spot(place, names)} (from 0). Drop their rows or "
                f"impute them."
            )
    if array.dtype.itemsize > 2 and not _is_large(array):
        _check_resolution(array, where, names)
    return array


def _check_resolution(array: np.ndarray, where: str, names: tuple[str, ...]) -> None:
    """Refuses entries whose rows differ by hardly more than the rounding of what is read."""
    dtype = torch.get_default_dtype()
    low, high = array.min(axis=0).astype(float), array.max(axis=0).astype(float)
    largest, spread = np.maximum(abs(low), abs(high)), high - low
    # What differs by float64's own rounding alone is constant.
    narrow = (spread < 1e-4 * largest) & (spread > 1e-14 * largest)
    for place in map(tuple, np.argwhere(narrow)):
        exact = array[(slice(None), *place)].astype(float)
        lost = torch.from_numpy(exact).to(dtype).double().numpy() - exact
        if lost.std() > 0.05 * exact.std():
            share = f"{spread[place] / largest[place]:.0e}"
            raise ValueError(
                f"{where} has numbers of size {largest[place]:.3g} that vary by {share} of it in "
                f"{_spot(place, names)}, which {dtype} cannot hold. Subtract their mean first."
            )


def _spot(place: Iterable[int], names: tuple[str, ...]) -> str:
    place = tuple(map(int, place))
    return f"column {names[place[0]]!r}" if names else f"place {place}"


def listed(words: Iterable[str], separator: str = ", ") -> str:
    """Return words as a list of which many are left out and counted.

    Args:
        words: Any number of them.
        separator: What stands between two.

    Returns:
        The first few; "none" if there are none.

    Example:
        >>> listed(map(str, range(60)))
        '0, 1, 2, 3, 4, 5, 6, 7 and 52 more'
    """
    words = list(words)
    left = len(words) - _LISTED
    shown = separator.join(words[:_LISTED]) or "none"
    return f"{shown} and {left} more" if left > 0 else shown


def _images(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        return np.moveaxis(array, -1, 1)
    return array


def _are_bytes(array: np.ndarray) -> bool:
    if array.dtype != np.uint8 or array.ndim < 3:
        return False
    if not _is_large(array):
        return bool(array.max() > 1)
    # Of images on disk a few, evenly spread, have to speak for all.
    few = torch.arange(0, len(array), -(-len(array) // 1000))
    return bool(Mapped(array)[few].max() > 1)


def _is_large(array: np.ndarray) -> bool:
    return array.size * torch.get_default_dtype().itemsize > IN_MEMORY
