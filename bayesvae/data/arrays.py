"""Arrays from ``.npy``, ``.npz`` and ``.pt`` files, and the choice among several in one file.

Nothing is unpickled but tensors, by torch's restricted unpickler, and numbers in ``.npy`` and
``.pt`` files stay on disk until they are asked for.
"""

from __future__ import annotations

import lzma
import math
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.raw import Raw, listed

DATA = ("x", "data", "images")
LABELS = ("labels", "label", "y", "targets", "target")
LABEL_NAMES = ("label_names", "classnames", "class_names", "classes")

MOST = 2**31

# What the readers throw at bytes that are not what they should be.
BROKEN = (ValueError, TypeError, OSError, EOFError, KeyError, RuntimeError)
BROKEN += (zipfile.BadZipFile, zlib.error, lzma.LZMAError, pickle.UnpicklingError)


class Header(NamedTuple):
    """Shape and type of an array that need not be read for that."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Choice(NamedTuple):
    """Names of the arrays of a file that are data and classes, to train and to test on."""

    x: str
    labels: str | None = None
    test: str | None = None
    test_labels: str | None = None


def read_npy(path: Path) -> Raw:
    """Return the array of a ``.npy`` file, mapped.

    Raises:
        ValueError: If the file is not whole, or holds Python objects.
    """
    try:
        return Raw(np.lib.format.open_memmap(path, mode="r"))
    except BROKEN as error:
        raise _broken(path, "numpy.save", error) from error


def read_npz(path: Path, array: str | None = None, labels: str | None = None) -> Raw:
    """Return the arrays of a ``.npz`` file that `choose` chooses; no others are decompressed.

    Raises:
        ValueError: If the file is not whole, or the choice is not clear.
    """
    try:
        headers = _headers(path)
    except BROKEN as error:
        raise _broken(path, "numpy.savez", error) from error
    choice = choose(headers, str(path), array, labels)
    words = {name for name in LABEL_NAMES if name in headers and headers[name].dtype.kind in "US"}
    _check_memory(path, [headers[name] for name in {*choice, *words} - {None}])
    try:
        arrays = load_npz(path, {*choice, *words} - {None})
    except BROKEN as error:
        raise _broken(path, "numpy.savez", error) from error
    return _chosen(arrays, choice)


def _check_memory(path: Path, headers: Iterable[Header]) -> None:
    """Refuse arrays by their shapes, before any is decompressed: a small file can hold large ones.

    Raises:
        ValueError: If they take more than `MOST` bytes.
    """
    needed = sum(math.prod(header.shape) * header.dtype.itemsize for header in headers)
    if needed > MOST:
        raise ValueError(
            f"Arrays of a .npz file are held in memory, at most {MOST / 2**30:.3g} GiB; those of "
            f"{path} take {needed / 2**30:,.3g} GiB. Save the data as a .npy file, which stays on "
            f"disk."
        )


def load_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return some arrays of a ``.npz`` file.

    Raises:
        One of `BROKEN`: If the file is not whole, or has no such array.
    """
    # Opened here, for numpy leaves a file that is no archive open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


def read_pt(path: Path, array: str | None = None, labels: str | None = None) -> Raw:
    """Return the tensor of a file of `torch.save`, or those of a dict or tuple in it.

    Raises:
        ValueError: If the file is not whole or holds anything but dense tensors, or the choice is
            not clear.
    """
    try:
        # Torch warns of kinds of tensors that are refused below in words.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Files of the old format cannot be mapped.
            saved = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except BROKEN as error:
        raise _broken(path, "torch.save", error) from error
    named = dict(enumerate(saved)) if isinstance(saved, tuple | list) else saved
    named = {path.name: named} if isinstance(named, Tensor) else named
    named = named if isinstance(named, dict) else {}
    tensors = {str(k): v for k, v in named.items() if isinstance(v, Tensor)}
    arrays = {name: _array(tensor) for name, tensor in tensors.items() if not _kind(tensor)}
    if array not in arrays:
        _check_dense(tensors, path)
    if not arrays:
        raise ValueError(
            f"{path} needs a tensor, or a dict or tuple of tensors; got {type(saved).__name__}. "
            f"Save the data themselves, as in torch.save(x, path)."
        )
    headers = {name: Header(each.shape, each.dtype) for name, each in arrays.items()}
    return _chosen(arrays, choose(headers, str(path), array, labels))


def choose(
    headers: dict[str, Header], where: str, array: str | None = None, labels: str | None = None
) -> Choice:
    """Return which arrays of a file are the data, and which their classes.

    The data are `array`; else a pair of names that differ in "train" and "test", a ready split;
    else the array called x, data or images; else the only one that has rows of numbers. Classes
    are `labels`; else those called labels, y or targets, if there is one for each row.

    Args:
        headers: What the file holds.
        where: Its name, for errors.
        array: Name of the data.
        labels: Name of the classes.

    Returns:
        Names.

    Raises:
        ValueError: If there is no such array, or more than one.

    Example:
        >>> header = Header((5, 2), np.dtype("f4"))
        >>> choose({"x_train": header, "x_test": header}, "file").test
        'x_test'
    """
    for name in (array, labels):
        if name is not None and name not in headers:
            raise ValueError(f"{where} has no array {name!r}; it has {_listed(headers)}.")
    tables = [
        name
        for name, header in headers.items()
        if len(header.shape) > 1
        and header.dtype.kind in "biuf"
        and _bare(name) not in LABELS
        and name != labels
    ]
    splits = [name for name in tables if "train" in name and _twin(name) in tables]
    named = [name for name in tables if name.lower() in DATA]
    ways = ([array] if array else [], [*headers] if len(headers) == 1 else [])
    found = next((way for way in (*ways, splits, named, tables) if len(way) == 1), None)
    chosen = [] if found is None else [found[0], labels or found[0]]
    if any(headers[name].dtype.hasobject for name in chosen or headers):
        raise ValueError(
            f"{where} holds Python objects, which are never unpickled: {_listed(headers)}. Save "
            f"arrays of numbers."
        )
    if found is None:
        raise ValueError(
            f"{where} does not say which of its arrays are the data: it has {_listed(headers)}. "
            f"Choose one, whose rows are the data, with array=NAME."
        )
    x = found[0]
    test = _twin(x) if array is None and x in splits else None
    return _labelled(headers, where, Choice(x, labels, test))


def _labelled(headers: dict[str, Header], where: str, choice: Choice) -> Choice:
    size, name = headers[choice.x].shape[:1], choice.labels
    if name is None:
        fitting = [
            name
            for name, header in headers.items()
            if _bare(name) in LABELS
            and _part(name) == _part(choice.x)
            and header.dtype.kind in "biuUS"
            and header.shape in (size, (*size, 1))
        ]
        name = fitting[0] if fitting else None
    elif headers[name].shape not in (size, (*size, 1)):
        raise ValueError(
            f"labels needs one class for each of the {size[0]} rows of {choice.x!r}; got {name!r} "
            f"of shape {headers[name].shape} in {where}."
        )
    twin = _twin(name) if name and choice.test else None
    fits = twin in headers and headers[twin].shape[:1] == headers[choice.test].shape[:1]
    twin = twin if fits and twin != name else None
    return choice._replace(labels=name, test_labels=twin)


def _chosen(arrays: dict[str, np.ndarray], choice: Choice) -> Raw:
    labels = [
        None if name is None else arrays[name].reshape(-1)
        for name in (choice.labels, choice.test_labels)
    ]
    test = None if choice.test is None else arrays[choice.test]
    words = [v for k, v in arrays.items() if k in LABEL_NAMES and v.dtype.kind in "US"]
    names = tuple(words[0].astype(str).tolist()) if words and labels[0] is not None else ()
    return Raw(arrays[choice.x], labels[0], test, labels[1], label_names=names)


def _headers(path: Path) -> dict[str, Header]:
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                first = version == (1, 0)
                form = np.lib.format
                read = form.read_array_header_1_0 if first else form.read_array_header_2_0
                shape, _, dtype = read(file)
            name = member.removesuffix(".npy")
            if name in headers:
                raise ValueError(f"it has two arrays called {name!r}")
            headers[name] = Header(shape, dtype)
    return headers


def _check_dense(tensors: Mapping[str, Tensor], path: Path) -> None:
    remedies = {
        "sparse": "Save x.to_dense().",
        "quantised": "Save x.dequantize().",
        "meta": "It has a shape but no numbers: save the data themselves.",
    }
    for name, tensor in tensors.items():
        if kind := _kind(tensor):
            raise ValueError(
                f"{path} needs dense numbers; got a {kind} tensor, {name!r}. {remedies[kind]}"
            )


def _kind(tensor: Tensor) -> str:
    """What keeps a tensor from being an array of numbers; nothing of most."""
    if tensor.is_meta:
        return "meta"
    if tensor.is_quantized:
        return "quantised"
    return "" if tensor.layout == torch.strided else "sparse"


def _array(x: Tensor) -> np.ndarray:
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x.resolve_conj()).numpy()


def _part(name: str) -> str:
    return next((part for part in ("train", "test", "valid") if part in name.lower()), "")


def _bare(name: str) -> str:
    return name.lower().replace(_part(name), "").strip("_-. ")


def _twin(name: str) -> str:
    return name.replace("train", "test")


def _listed(headers: dict[str, Header]) -> str:
    words = (f"{name} {header.dtype} {header.shape}" for name, header in headers.items())
    return listed(words, "; ")


def _broken(path: Path, writer: str, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return ValueError(
        f"{path} is no whole file of numbers as {writer} writes them ({reason}). Save or copy it "
        f"anew; Python objects are never unpickled."
    )
