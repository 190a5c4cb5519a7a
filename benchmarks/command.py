"""The command line of a benchmark, from the signature and the docstring of its `main`."""

import inspect
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from bayesvae.cli.parts import described


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of a description as they are."""


def run(main: Callable[..., None], words: Sequence[str] | None = None) -> None:
    """Calls a benchmark with what is said on the command line.

    Args:
        main: the benchmark; each argument has a default and becomes an option.
        words: the command line without the program's name; the process's own if None.
    """
    parser = _parser(main)
    main(**parser.instantiate(parser.parse_args(words)))


def _parser(main: Callable[..., None]) -> ArgumentParser:
    home, texts = sys.modules[main.__module__], described(main)
    parser = ArgumentParser(
        prog=f"python -m benchmarks.{Path(home.__file__).stem}",
        description=home.__doc__,
        formatter_class=_Formatter,
    )
    for name, each in inspect.signature(main).parameters.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=each.annotation, default=each.default, help=texts[name])
    return parser
