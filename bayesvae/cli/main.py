"""The command line: commands, exit codes, and what is said when something goes wrong."""

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, NamedTuple
from unittest import mock

from jsonargparse import Namespace
from tqdm import tqdm

from bayesvae import __version__
from bayesvae.cli import arguments, evidence_arguments
from bayesvae.cli.comparing import compare_parser, run_compare
from bayesvae.cli.evidence import run_bracket, run_calibrate
from bayesvae.cli.examine import run_evaluate, run_sample
from bayesvae.cli.help import Parser
from bayesvae.cli.listing import run_list
from bayesvae.cli.mistakes import answer, as_options, nearest
from bayesvae.cli.parse import parse
from bayesvae.cli.parts import with_full_names
from bayesvae.cli.train import run_fit


class Command(NamedTuple):
    """A command.

    Attributes:
        parser: makes the parser of its arguments.
        run: does it.
        what: it in words.
    """

    parser: Callable[[], Parser]
    run: Callable[[Namespace], None]
    what: str


COMMANDS = {
    "fit": Command(arguments.fit_parser, run_fit, "train a model and its guide on any data"),
    "compare": Command(compare_parser, run_compare, "take log p(x) - ELBO apart"),
    "evaluate": Command(
        evidence_arguments.evaluate_parser,
        run_evaluate,
        "ELBO and log p(x) of a run, datum by datum",
    ),
    "bracket": Command(
        evidence_arguments.bracket_parser,
        run_bracket,
        "log p(x) from both sides, of data that a run makes itself",
    ),
    "calibrate": Command(
        evidence_arguments.calibrate_parser,
        run_calibrate,
        "is the guide of a run the posterior? and how is it not",
    ),
    "sample": Command(
        arguments.sample_parser, run_sample, "draws, reconstructions, paths and spaces of a run"
    ),
    "list": Command(arguments.list_parser, run_list, "data sets and parts by name"),
}

_USAGE = """usage: bayesvae COMMAND [options]

Deep latent-variable models in Pyro, and what their inference costs.

commands:
{}

`bayesvae COMMAND --help` shows a command's options. A first run, on digits that need no download:
  bayesvae fit --out runs/first && bayesvae compare runs/first && bayesvae sample runs/first"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        words: the command line without the program's name; the process's own if None.

    Returns:
        The exit code: 0, 1 for a fault of the program, 2 for bad input; if interrupted, 128 and
        the number of the signal (130 for Ctrl-C).
    """
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["--version"]:
        print(f"bayesvae {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        rows = (f"  {name:11}{command.what}" for name, command in COMMANDS.items())
        print(_USAGE.format("\n".join(rows)))
        return 0
    # That there is no GPU toolkit is no news to whoever compiles for a processor.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    received: list[int] = []
    try:
        with _warnings_in_a_line(), _signals_as_interruptions(received):
            _run(*words)
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = None
    except KeyboardInterrupt as stop:
        print(f"bayesvae: interrupted; {str(stop) or 'nothing was lost'}", file=sys.stderr)
        return 128 + (received or [signal.SIGINT])[0]
    except Exception as error:
        text, code = answer(error, words[0])
        print(f"bayesvae: {text}", file=sys.stderr)
        return code
    return 0


@contextmanager
def _signals_as_interruptions(received: list[int]) -> Iterator[None]:
    """Has SIGTERM, which clusters send, and SIGHUP end a command as Ctrl-C does; notes which came.

    One that is ignored, as under nohup, stays so.
    """

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP") if current_thread() is main_thread() else ()
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {each: signal.getsignal(each) for each in signals}
    before = {
        each: handler for each, handler in before.items() if handler not in (signal.SIG_IGN, None)
    }
    for each in before:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Says what a warning says, and not where in the code it stands."""

    def show(message: Warning | str, *_: Any) -> None:
        tqdm.write(f"bayesvae: {as_options(str(message))}", file=sys.stderr)

    with mock.patch.object(warnings, "showwarning", show):
        yield


def _run(name: str, *words: str) -> None:
    if name not in COMMANDS:
        raise ValueError(
            f"A command is one of {', '.join(COMMANDS)}; got {name!r}.{nearest(name, COMMANDS)}"
        )
    parser = COMMANDS[name].parser()
    parser.prog = f"bayesvae {name}"
    full, parser.named = with_full_names(words)
    parser.trust = "--trust" in words
    COMMANDS[name].run(parse(parser, full))
