"""Files that survive: tensors and JSON only, written aside and renamed, read without unpickling.

A reader sees the old file or the new one and never half of either; loading runs no code.
"""

import io
import json
import os
import warnings
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
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
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
    write_aside(path, lambda aside: aside.write_bytes(buffer.getvalue()))


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles; they are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can break the reader anywhere
        raise ValueError(f"{path} is not a readable checkpoint; it may be cut short.") from error
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
