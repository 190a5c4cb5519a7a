"""What a command answers when it stops: one line, and an exit code.

2  bad input: the rule, what was received, the remedy
1  a fault of the program: what it is and where

With the environment variable BAYESVAE_TRACEBACK=1 the traceback comes first.
"""

import errno
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[1]
_BAD_INPUT = (ValueError, OSError, FloatingPointError, ImportError)
_FEWER = {
    "fit": "--latent, --batch-size, --levels, --particles, or narrower networks",
    "compare": "--limit, --particles or --evidence-particles",
    "evaluate": "--limit or --particles",
    "bracket": "--data-count or --chains",
    "calibrate": "--data-count or --draws",
    "sample": "--count or --steps",
}

_KEYWORDS = "array|columns|labels|image_size|grey|divide|test|components|clip_norm|batch_size"
_CALLED = re.compile(rf"\b({_KEYWORDS})=(\([\d, ]*\)|'[^']*'|[\w]+(?:\.\d+)?|\.\.\.)?")
_RULE = re.compile(rf"^((?:{_KEYWORDS})(?:, (?:{_KEYWORDS}))*)(?= (?:needs|says) )")
_LIST = re.compile(r"(?<=of these options it takes ).*(?=\.$)")
_PHRASES = {
    r"hold_out needs a fraction": "--validation needs a share",
    r"hold_out needs": "--validation needs",
    r"Try 0\.1\.$|Read more data, or train without validation\.$": (
        "Use --validation 0 to hold none out, or give more data."
    ),
    r"Use None for 1\.": "Leave it out to divide by nothing.",
    r"Use None to": "Leave it out to",
    r"Use annealed_evidence\(\.\.\.\), or a wider proposal\.": (
        "`bayesvae evaluate RUN` comes closer with --annealing, or with --proposal mixture."
    ),
    r"binarise them \(data\..*?\)\) or use likelihoods\.Normal\.": (
        "use --binarise static or dynamic, or --likelihood Normal."
    ),
    r"without their positions\. Pass all of them, or a part as \(x, index\) .*": (
        "that have none, for the model made them. Train with --guide Amortized."
    ),
    r"Use Amortized\(\.\.\.\)\.": "Train with --guide Amortized.",
    r"needs n >= 50 and draws >= 99; got (\d+) and (\d+)": (
        r"needs --data-count of 50 or more and --draws of 99 or more; got \1 and \2"
    ),
    r"Build the network with outputs=family\.size\.": (
        "Name an --encoder that takes `outputs` and gives as many numbers, such as MLP."
    ),
}
"""What the library says to those who call it, as said to those who type."""


def answer(error: Exception, command: str) -> tuple[str, int]:
    """What an error is answered with: one line, and the exit code.

    Args:
        error: what a command stopped with.
        command: the command that was called.
    """
    if os.environ.get("BAYESVAE_TRACEBACK") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if _is_memory(error):
        return f"{_memory(str(error))} Use fewer or smaller {_FEWER.get(command, 'data')}.", 2
    if isinstance(error, _BAD_INPUT) or _is_raised(error):
        return _one_line(error), 2
    kind = f"{type(error).__name__}: {_one_line(error)}"
    return f"A fault of the program, not of the input: {kind} ({_place(error)}).", 1


def own_error(error: BaseException) -> Exception | None:
    """The error of this package that another was made from, None if there is none."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ValueError) and _is_raised(cause):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def unknown(
    rule: str, known: Iterable[str], name: str, got: str | None = None, more: str = ""
) -> ValueError:
    """An error about a name that there is not, with the nearest that there is.

    Args:
        rule: what takes names; one that ends in "takes" is followed by them.
        known: the names.
        name: what was given instead.
        got: it as shown, if otherwise.
        more: put after the names.
    """
    known = sorted(known)
    if rule.endswith(" takes"):
        rule += f" one of {', '.join(known)}" if known else " no arguments"
    return ValueError(f"{rule}{more}; got {got or repr(name)}.{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The question whether the nearest name was meant; empty if none is near.

    Example:
        >>> nearest("MNIST", ["digits", "mnist"])
        ' Did you mean mnist?'
    """
    lower = {_bare(each): each for each in known}
    found = get_close_matches(_bare(name), lower, 1)
    return f" Did you mean {lower[found[0]]}?" if found else ""


def _bare(name: str) -> str:
    """A name without its case, dashes in front, and modules."""
    return name.lower().lstrip("-").rpartition(".")[2]


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f", for {error.filename}" if error.filename else ""
        return (
            f"The disk is full{where}; files written before are whole. Make room, and try again."
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}. Choose another path, or free this one."
    text = " ".join(str(error).split("\n\nprogram ")[0].split())
    return as_options(text) or type(error).__name__


def as_options(text: str) -> str:
    """A message with options in place of keywords."""
    for phrase, said in _PHRASES.items():
        text = re.sub(phrase, said, text)
    text = _RULE.sub(lambda found: _option_names(found[0]), text)
    text = _LIST.sub(lambda found: _option_names(found[0]), text)
    return _CALLED.sub(lambda found: _spoken(found[1], found[2] or ""), text)


def _option_names(keywords: str) -> str:
    return re.sub(rf"\b({_KEYWORDS})\b", lambda found: _spoken(found[0], ""), keywords)


def _spoken(keyword: str, value: str) -> str:
    own = "prior." if keyword == "components" else ""
    plain = re.sub(r"[(),']", "", value)
    return f"--{own}{keyword.replace('_', '-')} {plain}".rstrip()


def _is_memory(error: BaseException) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def _memory(text: str) -> str:
    wanted = re.search(r"allocate (\d+) bytes", text)
    size = f", {int(wanted[1]) / 2**30:,.1f} GiB at once" if wanted else ""
    return f"This needs more memory than there is{size}."


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Where an error passed, innermost first."""
    yield from reversed(traceback.extract_tb(error.__traceback__))


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return PACKAGE in Path(frame.filename).parents


def _is_raised(error: BaseException) -> bool:
    """Whether this package raised an error in so many words."""
    frame = next(_frames(error), None)
    if frame is None or not _is_ours(frame) or isinstance(error, RuntimeError):
        return False
    return linecache.getline(frame.filename, frame.lineno or 0).lstrip().startswith("raise ")


def _place(error: BaseException) -> str:
    frame = next(filter(_is_ours, _frames(error)), None)
    if frame is None:
        return "outside the package"
    return f"{Path(frame.filename).relative_to(PACKAGE.parent)}, line {frame.lineno}"
