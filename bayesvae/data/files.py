"""Data of one's own, from a file or a folder of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from bayesvae.data.arrays import read_npy, read_npz, read_pt
from bayesvae.data.image_folders import read_folder
from bayesvae.data.mapped import Mapped
from bayesvae.data.raw import Raw, to_splits
from bayesvae.data.splits import Splits
from bayesvae.data.tables import read_table


class _Reader(NamedTuple):
    read: Callable[..., Raw]
    options: tuple[str, ...] = ()


_FOLDER = _Reader(read_folder, ("image_size", "grey"))
_READERS = {
    ".npy": _Reader(read_npy),
    ".npz": _Reader(read_npz, ("array", "labels")),
    **dict.fromkeys((".pt", ".pth"), _Reader(read_pt, ("array", "labels"))),
    **dict.fromkeys((".csv", ".tsv", ".txt"), _Reader(read_table, ("columns", "labels"))),
}


def read(
    path: str | os.PathLike,
    *,
    array: str | None = None,
    columns: Sequence[str | int] | None = None,
    labels: str | int | None = None,
    image_size: int | tuple[int, int] | None = None,
    grey: bool = False,
    divide: float | None = None,
    test: float = 0.2,
) -> Splits:
    r"""Return the data of a file, or of a folder of images, as training and test part.

    Read are ``.npy``; ``.npz`` and ``.pt`` with one array, or one called x, data or images, or a
    ready split such as x_train and x_test, each with its labels if they are called so (or y, or
    targets); ``.csv``, ``.tsv`` and ``.txt`` with commas, semicolons, tabs or blanks, with or
    without a header; folders of images of one size, whose subfolders are classes, or the two parts
    train and test.

    Images ``(N, H, W)`` and ``(N, H, W, C)`` get their channels first, and bytes among them become
    grey levels in [0, 1]; all other numbers stay what they are. What would take more than a
    gibibyte in memory is `Mapped`: ``.npy`` and ``.pt`` files stay on disk. Nothing but numbers is
    ever unpickled.

    Args:
        path: File or folder.
        array: Which array of a ``.npz`` or ``.pt`` file to take, where several could be meant.
        columns: Which columns of a table to take, by name or number from 0; by default all.
        labels: Array or column of classes, whole numbers or words. They are no part of the data.
        image_size: Height and width, or one number for both, to which to resize the images of a
            folder.
        grey: Turn the images of a folder to shades of grey, with one channel.
        divide: Number by which to divide the data, also bytes of images.
        test: Share of the rows to set aside, by a permutation that is the same everywhere; the
            training part of a ready split is permuted too. With 0 all rows of the file, or of that
            part, are in `train`, in their order.

    Returns:
        Data ``(N, *event)`` in torch's default floating-point type.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If an array does not hold real numbers.
        ValueError: If the file is of no known kind or broken, or what it holds is not clear,
            empty, or not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,width,kind\n1,2,a\n3,4,b\n5,6,a\n")
        >>> splits = read(path, labels="kind", test=0)
        >>> splits.train.shape, splits.names, splits.train_labels, splits.label_names
        (torch.Size([3, 2]), ('height', 'width'), tensor([0, 1, 0]), ('a', 'b'))
    """
    options = {"array": array, "columns": columns, "labels": labels}
    raw = _raw(path, **options, image_size=image_size, grey=grey or None)
    return to_splits(raw, str(path), divide, test)


def read_rows(
    path: str | os.PathLike, *, divide: float | None = None, **options: Any
) -> tuple[Tensor | Mapped, Tensor | None]:
    """Return all rows of a file in their order, to evaluate on; of a ready split, the test part.

    Args:
        path: As `read`.
        divide: As `read`.
        options: `array`, `columns`, `labels`, `image_size` and `grey`, as `read`.

    Returns:
        Data ``(N, *event)``, and their classes ``(N,)`` or None.

    Raises:
        FileNotFoundError: As `read`.
        TypeError: As `read`.
        ValueError: As `read`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.txt"
        >>> _ = path.write_text("0 1 2")
        >>> read_rows(path, labels=2)
        (tensor([[0., 1.]]), tensor([2]))
    """
    splits = read(path, divide=divide, test=0, **options)
    if splits.test is None:
        return splits.train, splits.train_labels
    return splits.test, splits.test_labels


def _raw(path: str | os.PathLike, **options: Any) -> Raw:
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path.absolute()}.")
    if not path.is_dir() and not path.is_file():
        raise ValueError(
            f"{path} is neither a file nor a folder, but a pipe, a device or the like, which may "
            f"never end. Save what it gives to a file."
        )
    reader = _FOLDER if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} is of no kind that can be read, a folder of images or one of "
            f"{', '.join(_READERS)}. Save the data as one of these."
        )
    options = {name: value for name, value in options.items() if value is not None}
    if beyond := [name for name in options if name not in reader.options]:
        known = ", ".join(reader.options) or "none of them"
        raise ValueError(
            f"{', '.join(beyond)} says nothing about {path}; of these options it takes {known}."
        )
    return reader.read(path, **options)
