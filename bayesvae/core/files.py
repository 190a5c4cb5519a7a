"""Files that survive: tensors and JSON only, written aside and renamed, read without unpickling.

A reader sees the old file or the new one and never half of either; loading runs no code.
"""

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def write_aside(path: Path | str, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a temporary neighbour of ``path``, then renames it to ``path``.

    Args:
        path: the file to make or replace; missing folders are made.
        write: writes the whole file to the path that it is given.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.bayesvae-aside{path.suffix}")
    try:
        write(aside)
        notice(path)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


_noticed: ContextVar[Callable[[Path], None] | None] = ContextVar("noticed", default=None)


def notice(path: Path) -> None:
    """Tells whoever wants to know that a file is about to be at a path."""
    if (listener := _noticed.get()) is not None:
        listener(path)


@contextmanager
def noticed(listener: Callable[[Path], None] | None) -> Iterator[None]:
    """Has a function told of every file that is written meanwhile, just before it is there."""
    before = _noticed.set(listener)
    try:
        yield
    finally:
        _noticed.reset(before)


def unnoticed() -> AbstractContextManager:
    """Writes without telling anyone."""
    return noticed(None)


def save_state(path: Path | str, state: Mapping[str, Tensor]) -> None:
    """Writes a ``state_dict``.

    Args:
        path: the file.
        state: tensors by name.
    """
    # Through memory: equal states make equal files, and a full disk is an OSError.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = _with_checksum(buffer.getvalue())
    write_aside(path, lambda aside: aside.write_bytes(content))


_SUM, _DIGITS = b"sha256:", 64
_END = b"PK\x05\x06"
"""What the last record of a zip file begins with; it ends with a comment, its length before it."""


def _with_checksum(content: bytes) -> bytes:
    """A zip file as torch writes one, without comment, with the sum of its bytes as comment."""
    comment = _SUM + hashlib.sha256(content).hexdigest().encode()
    return content[:-2] + len(comment).to_bytes(2, "little") + comment


def _is_whole(content: bytes) -> bool:
    """Whether a file has the sum that it states; one of an earlier version states none."""
    size = len(_SUM) + _DIGITS
    if content[-22:-18] == _END and content[-2:] == b"\0\0":
        return True
    plain, comment = content[: -size - 2] + b"\0\0", content[-size:]
    stated = content[-size - 2 : -size] == size.to_bytes(2, "little")
    return stated and comment == _SUM + hashlib.sha256(plain).hexdigest().encode()


def load_state(path: Path | str) -> dict[str, Tensor]:
    """Reads a ``state_dict`` to the CPU, without unpickling anything but tensors.

    Args:
        path: a file that `save_state` wrote.

    Returns:
        Tensors by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds anything but tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"A checkpoint is a file; there is none at {path}.")
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles; they are refused below
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can break the reader anywhere
        raise ValueError(f"{path} is not a readable checkpoint; it may be cut short.") from error
    if zipfile.is_zipfile(io.BytesIO(content)) and not _is_whole(content):
        raise ValueError(
            f"{path} is damaged, or may be cut short: its bytes have not the sum that it states."
        )
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not tensors:
        raise ValueError(f"A checkpoint holds tensors by name; {path} holds something else.")
    return state


def save_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes JSON that people can read.

    Args:
        path: the file.
        content: what `json` can write.
    """
    text = json.dumps(dict(content), indent=2) + "\n"
    write_aside(path, lambda aside: aside.write_text(text))
