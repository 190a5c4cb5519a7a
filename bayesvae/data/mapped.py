"""Data that stay on disk: rows of a memory-mapped array, read when they are asked for.

A file larger than memory is opened by ``numpy.load(path, mmap_mode="r")``, which reads only its
header. `Mapped` looks like a tensor of it from outside, slices without reading, and reads what is
indexed by positions: a batch. Memory then holds one batch, whatever N, and 8 bytes a row where
rows are permuted.
"""

from __future__ import annotations

import copy
import mmap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Mapped:
    """Rows ``(N, *event)`` of an array on disk, in torch's default floating-point type.

    ``x[3]`` and ``x[index]``, for positions ``(B,)``, read rows into a tensor; ``x[2:9]`` is a
    `Mapped` again, a view that reads nothing; ``x.read()`` reads all of its rows.

    Args:
        array: Numbers of shape ``(N, *event)`` of any type, such as ``numpy.load(path,
            mmap_mode="r")`` or a view of it (``array[:, None]``, ``numpy.moveaxis``); an array in
            memory will do. In column-major ("Fortran") order every row is spread over the file.
        rows: Rows to serve, in this order, as whole numbers ``(M,)``; all if None.
        divide: Number by which to divide what is read, such as 255 for bytes that are grey levels.

    Attributes:
        shape: ``(N, *event)``, as of a tensor; likewise `ndim`, `dtype` and `device`.

    Raises:
        TypeError: If `array` is no array of numbers.
        ValueError: If it is a single number, or `divide` is not positive.
        IndexError: If `rows` do not lie in it.

    Example:
        >>> x = Mapped(np.arange(6, dtype=np.uint8).reshape(3, 2), divide=5)
        >>> x[1:]
        Mapped of shape (2, 2), uint8 / 5
        >>> x[torch.tensor([2, 0])]
        tensor([[0.8000, 1.0000],
                [0.0000, 0.2000]])
    """

    def __init__(
        self, array: np.ndarray, rows: Tensor | None = None, divide: float | None = None
    ) -> None:
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"Mapped needs a numpy array of real numbers; got {kind}. Open a .npy file by "
                f'numpy.load(path, mmap_mode="r").'
            )
        if array.ndim < 1:
            raise ValueError("Mapped needs rows (N, *event); got a single number.")
        kind = torch.finfo(torch.get_default_dtype())
        if divide is not None and not kind.tiny <= divide <= kind.max:
            raise ValueError(
                f"divide needs a positive number that {kind.dtype} holds; got {divide}. Use None "
                f"for 1."
            )
        self._array, self._divide, self._map = array, divide, map_of(array)
        self._rows: range | np.ndarray = range(len(array))
        if rows is not None:
            self._rows = _whole(rows, len(array))
        self.dtype, self.device = torch.get_default_dtype(), torch.device("cpu")
        self.shape = torch.Size((len(self._rows), *array.shape[1:]))
        self.ndim = array.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        divided = "" if self._divide is None else f" / {self._divide:g}"
        return f"Mapped of shape {tuple(self.shape)}, {self._array.dtype}{divided}"

    def __getitem__(self, key: int | slice | Tensor) -> Tensor | Mapped:
        """Read the row or rows at whole-number positions; of a slice, return a view.

        Args:
            key: A position, whole numbers ``(B,)``, or a slice.

        Returns:
            A tensor ``(*event)`` or ``(B, *event)``; for a slice a `Mapped`.

        Raises:
            IndexError: If there is no such row.
            TypeError: If `key` is none of these.
            ValueError: If a value read is not finite; says in which row.
        """
        if isinstance(key, slice):
            return self._view(self._rows[key])
        if isinstance(key, int | np.integer):
            return self._read([self._rows[key]])[0]
        positions = _whole(key, len(self))
        if isinstance(self._rows, range):
            return self._read(self._rows.start + self._rows.step * positions)
        return self._read(self._rows[positions])

    def read(self) -> Tensor:
        """Read all rows into memory.

        Returns:
            A tensor ``(N, *event)``.

        Raises:
            ValueError: If a value is not finite; says in which row.
        """
        return self._read(self._rows)

    def _view(self, rows: range | np.ndarray) -> Mapped:
        view = copy.copy(self)
        view._rows, view.shape = rows, torch.Size((len(rows), *self.shape[1:]))
        return view

    def _read(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        rows = np.asarray(rows, dtype=np.int64)
        self._advise(rows)
        wide = np.float64 if self.dtype == torch.float64 else np.float32
        # What overflows is refused below, as infinite.
        with np.errstate(over="ignore"):
            values = np.asarray(self._array[rows], dtype=wide, order="C")
        x = torch.from_numpy(values).to(self.dtype)
        x = x if self._divide is None else x.div_(self._divide)
        if self._array.dtype.kind == "f" or (self._divide or 1) < 1:
            _check_finite(x, rows)
        return x

    def _advise(self, rows: np.ndarray) -> None:
        # Reading ahead is what makes a run of rows fast, and scattered small ones slow: the
        # system may fetch megabytes for each. Measured: 0.25 ms a row with it, 0.06 without.
        if self._map is None or not hasattr(mmap, "MADV_RANDOM"):
            return
        small = self._array[:1].nbytes <= 4 * mmap.PAGESIZE
        scattered = len(rows) == 1 or (np.diff(rows) != 1).any()
        self._map.madvise(mmap.MADV_RANDOM if small and scattered else mmap.MADV_NORMAL)


def map_of(array: np.ndarray) -> mmap.mmap | None:
    """Return the mapped file that an array is, or is a view of.

    Args:
        array: Any array.

    Returns:
        None for arrays in memory, also for copies of mapped ones, whose type numpy may keep.

    Example:
        >>> map_of(np.zeros(3)) is None
        True
    """
    base = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    return base


def _whole(positions: Tensor, size: int) -> np.ndarray:
    known = isinstance(positions, Tensor) and positions.ndim == 1
    if not known or positions.dtype not in (torch.int64, torch.int32):
        kind = f"{positions.dtype} of {positions.ndim} dimensions" if known else type(positions)
        raise TypeError(
            f"Mapped is indexed by a number, a slice, or an int64 tensor (B,); got {kind}."
        )
    rows = positions.cpu().numpy()
    if len(rows) and not -size <= rows.min() <= rows.max() < size:
        raise IndexError(
            f"Mapped has rows 0 to {size - 1}; got positions from {rows.min()} to {rows.max()}."
        )
    return rows % size if len(rows) else rows


def _check_finite(x: Tensor, rows: np.ndarray) -> None:
    bad = ~x.isfinite().reshape(len(x), x[:1].numel()).all(1)
    if bad.any():
        row = rows[bad.numpy()].min()
        raise ValueError(
            f"Data must be finite in {x.dtype}; got values that are not in row {row} of the array"
            f" and in {int(bad.sum()) - 1} more of the {len(x)} rows read with it. Drop such rows "
            f"or impute them: numpy.isfinite finds them."
        )
