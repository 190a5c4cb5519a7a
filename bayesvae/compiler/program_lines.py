"""The lines of a user's program that an error or a warning is about."""

import inspect
import linecache
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import pyro
import torch


def place_of(error: BaseException) -> str:
    """File and line, with its text, of the user's code that an error passed through last.

    Empty where it passed through none.
    """
    return named(traceback.extract_tb(error.__traceback__))


def frames_of_the_package() -> int:
    """The ``stacklevel`` at which a warning points to the code that called the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def parsed(stack: str) -> list[traceback.FrameSummary]:
    """The frames of a stack as text."""
    frames = []
    for line in stack.splitlines():
        parts = line.strip().split(", ")
        if len(parts) >= 3 and parts[0].startswith('File "'):
            file, number = parts[0][6:-1], int(parts[1].removeprefix("line "))
            frames.append(traceback.FrameSummary(file, number, parts[2].removeprefix("in ")))
    return frames


_PACKAGE = str(Path(__file__).parents[1])


_PYRO = str(Path(pyro.__file__).parent)


_LIBRARIES = (
    *(str(Path(inspect.getfile(module)).parent) for module in (torch, pyro, inspect)),
    _PACKAGE,
)


def named(frames: Sequence[traceback.FrameSummary]) -> str:
    """The last frame outside of the libraries and of generated code, else Pyro's last."""
    users = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))]
    users = users or [f for f in frames if f.filename.startswith(_PYRO)]
    if not users:
        return ""
    frame = users[-1]
    text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{frame.filename}:{frame.lineno}: {text}"
