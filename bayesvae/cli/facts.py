"""What a pair and its pictures depend on of the data; kept in a run's ``data.json``."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae.data import Mapped

FORMAT = 1
"""Of ``data.json``."""
ROWS = 2**16
"""Of a stand-in: enough for whatever starts at rows of the data, and soon gone through."""
LOOKED_AT = 1000
"""So many rows, evenly spread, make a fingerprint."""


def fingerprint_of(x: Tensor | Mapped) -> str:
    """A sum over many of the data, in their order: other rows, columns or orders have another one.

    Args:
        x: ``(N, *event)``, in memory or on disk.
    """
    rows = torch.linspace(0, len(x) - 1, min(len(x), LOOKED_AT)).long()
    content = x[rows].float().contiguous().numpy().tobytes()
    return hashlib.sha256(str(tuple(x.shape)).encode() + content).hexdigest()


class Facts(NamedTuple):
    """What is known of the data of a run, so that the pair can be rebuilt without them.

    Attributes:
        source: a data set's name, or an absolute path.
        event: shape of one datum.
        size: N, the number of training data.
        low: least value, as the pair sees them.
        high: greatest value.
        levels: C, if they are levels 0 ... C - 1.
        loc: what was subtracted from each entry to standardise it, None if nothing was.
        scale: what it was divided by then.
        names: names of the columns.
        label_names: names of the classes.
        fingerprint: a sum over many of the training data and their order, empty if not known.
    """

    source: str
    event: tuple[int, ...]
    size: int
    low: float
    high: float
    levels: int
    loc: list[float] | None
    scale: list[float] | None
    names: tuple[str, ...]
    label_names: tuple[str, ...]
    fingerprint: str = ""

    def stand_in(self) -> Tensor:
        """Rows over the same range as the data, at most `ROWS`; they share one row of memory."""
        row = torch.full(self.event, self.low).flatten()
        row[-1] = self.high
        return row.reshape(1, *self.event).expand(min(self.size, ROWS), *self.event)

    @property
    def log_units(self) -> float:
        """What to add to log-densities of standardised data for those in the data's own units."""
        return -sum(math.log(scale) for scale in self.scale or ())

    def standardised(self, x: Tensor) -> Tensor:
        """Data ``(B, *event)`` with what training subtracted and divided by."""
        if self.loc is None:
            return x
        loc, scale = torch.tensor(self.loc).to(x), torch.tensor(self.scale).to(x)
        return (x - loc.reshape(self.event)) / scale.reshape(self.event)

    def restored(self, x: Tensor) -> Tensor:
        """Standardised data in their own units again."""
        if self.loc is None:
            return x
        loc, scale = torch.tensor(self.loc).to(x), torch.tensor(self.scale).to(x)
        return x * scale.reshape(self.event) + loc.reshape(self.event)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": ("a text", _is_text),
    "event": ("a list of whole numbers above 0", lambda v: _is_list(v, _is_count) and v != []),
    "size": ("a whole number above 0", _is_count),
    "low": ("a number", _is_number),
    "high": ("a number", _is_number),
    "levels": ("a whole number", lambda v: isinstance(v, int)),
    "loc": ("a list of numbers, or null", lambda v: v is None or _is_list(v, _is_number)),
    "scale": (
        "a list of numbers above 0, or null",
        lambda v: v is None or _is_list(v, lambda n: _is_number(n) and n > 0),
    ),
    "names": ("a list of texts", lambda v: _is_list(v, _is_text)),
    "label_names": ("a list of texts", lambda v: _is_list(v, _is_text)),
}
_LATER = {"fingerprint": ("a text", _is_text), "format": ("1", lambda v: v == FORMAT)}
"""What earlier versions did not write."""


def read_facts(path: Path) -> Facts:
    """Reads ``data.json``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is not what ``bayesvae fit`` wrote.
    """
    remedy = "Put back the file that `bayesvae fit` wrote."
    if not path.is_file():
        raise FileNotFoundError(f"A run needs its {path.name}; there is none at {path}. {remedy}")
    content = read_object(path)
    if unknown := sorted(content.keys() - _RULES.keys() - _LATER.keys()):
        raise ValueError(f"{path} has entries that nobody reads: {', '.join(unknown)}. {remedy}")
    content = {"fingerprint": "", "format": FORMAT} | content
    for name, (rule, holds) in {**_RULES, **_LATER}.items():
        if name not in content:
            raise ValueError(f"{path} lacks {name}. {remedy}")
        if not holds(content[name]):
            shown = str(content[name])[:40]
            raise ValueError(f"{path} needs {name} as {rule}; got {shown}. {remedy}")
    known = {name: content[name] for name in (*_RULES, "fingerprint")}
    lists = {name: tuple(known[name]) for name in ("event", "names", "label_names")}
    facts = Facts(**(known | lists))
    entries = math.prod(facts.event)
    if (facts.loc is None) != (facts.scale is None) or any(
        each is not None and len(each) != entries for each in (facts.loc, facts.scale)
    ):
        raise ValueError(
            f"{path} needs loc and scale, one for each of {entries} entries. {remedy}"
        )
    return facts


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: if the file is no JSON, or holds anything else.
    """
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}). Repair or remove it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} needs entries by name; it holds none. Repair or remove it.")
    return content
