"""What commands print, where they write, and the device that they compute on."""

import csv
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesvae.core import files

_DEVICES = ("cpu", "cuda", "mps")


def remarks(quiet: bool) -> Callable[[str], None]:
    """A function that prints a remark, or none if they are not wanted."""
    return (lambda _: None) if quiet else (lambda text: print(text, flush=True))


def named(name: str, mean_and_error: tuple[float, float]) -> dict[str, float]:
    """A mean and its standard error as entries of a summary."""
    return {name: mean_and_error[0], f"{name}_stderr": mean_and_error[1]}


def show(figures: Mapping[str, Any]) -> None:
    """Prints the figures that have a standard error."""
    for name, value in figures.items():
        if f"{name}_stderr" in figures:
            print(f"  {name:24} {value:9.3f} +- {figures[name + '_stderr']:.3f}")


def device_of(name: str) -> torch.device:
    """The device, tried out.

    Raises:
        ValueError: if it is of another kind or this machine does not have it.
    """
    try:
        device = torch.device(name)
        there = device.type in _DEVICES and torch.zeros(1, device=device).item() == 0
    except (RuntimeError, AssertionError):
        there = False
    if not there:
        raise ValueError(
            f"--device takes {', '.join(_DEVICES)} where they are there; got {name}. Use cpu."
        )
    return device


def unused(
    path: Path, overwrite: bool, remedy: str = "Choose another --out, or add --overwrite."
) -> Path:
    """A path that results may be written to; an empty folder counts as none.

    Args:
        path: the path.
        overwrite: whether what is there may be replaced.
        remedy: what to do about it if not.

    Raises:
        ValueError: if something is there and may not be replaced.
        OSError: if nothing can be written there.
    """
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise ValueError(f"Results are not overwritten; {path} is there already. {remedy}")
    require_writable(path)
    return path


def require_writable(path: Path) -> None:
    """Tries whether something can be written at a path, and leaves nothing there.

    Raises:
        OSError: if not.
    """
    ancestors = (path, *path.absolute().parents)
    folder = next(each for each in ancestors if each.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def drawing() -> Iterator[None]:
    """Says that a picture could not be drawn, and goes on: the numbers under it are written."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"bayesvae: not all pictures could be drawn ({reason[:200]})", file=sys.stderr)


def write_csv(path: Path, columns: Mapping[str, Tensor]) -> None:
    """Writes columns of equal length, a line for each entry."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    files.write_aside(path, lambda aside: aside.write_text(text.getvalue()))
