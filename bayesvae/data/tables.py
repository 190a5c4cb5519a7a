"""Tables of numbers from text: delimiter and header are found, cells that are no numbers named.

Left out are comments at the top, marked by ``#``, but for a header that is written as one, as
numpy does it; and the empty cells that a delimiter at the end of every line makes. True and False
are 1 and 0.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from bayesvae.data.raw import Raw, classes, listed

_TRUTH = {"true": 1.0, "false": 0.0}
MISSING = ("", "?", "-", "na", "n/a", "nan", "null", "none", ".")

Column = str | int


class Record(NamedTuple):
    """The cells of a line, and the number of that line, from 1."""

    line: int
    cells: list[str]


def read_table(
    path: Path, columns: Sequence[Column] | None = None, labels: Column | None = None
) -> Raw:
    """Return the columns of a text file as numbers.

    Raises:
        ValueError: If it is no table of numbers; says in which line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _table(_records(file), str(path), columns, labels)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table in UTF-8 ({error}). Save it anew as such."
        ) from error


class _Layout(NamedTuple):
    """The columns of a table: titles, data, classes, and how many empty ones are at its end."""

    where: str
    titles: list[str]
    chosen: list[int]
    label: int | None
    spare: int


def _table(
    records: Iterator[Record],
    where: str,
    columns: Sequence[Column] | None,
    labels: Column | None,
) -> Raw:
    head = list(itertools.islice(records, 2))
    if not head:
        raise ValueError(f"{where} is empty; a table needs lines of numbers.")
    spare = min(_trailing(record.cells) for record in head)
    first = head[0].cells[: len(head[0].cells) - spare]
    named = _is_header(*(record.cells for record in head))
    layout = _layout(first, named, where, columns, labels)._replace(spare=spare)
    values, numbers, words = array("d"), array("q"), {}
    for record in itertools.chain(head[named:], records):
        values.extend(_numbers(record, layout))
        if layout.label is not None:
            numbers.append(words.setdefault(_word(record, layout), len(words)))
    if not values:
        raise ValueError(f"{where} has no numbers below its header or in the columns chosen.")
    names = tuple(first[i] for i in layout.chosen) if named else ()
    raw = Raw(np.frombuffer(values).reshape(-1, len(layout.chosen)), names=names)
    if layout.label is None:
        return raw
    known, label_names = classes(_classes(list(words)), where)
    return raw._replace(labels=known[np.frombuffer(numbers, np.int64)], label_names=label_names)


def _layout(
    first: list[str],
    named: bool,
    where: str,
    columns: Sequence[Column] | None,
    labels: Column | None,
) -> _Layout:
    names, width = first if named else [], len(first)
    label = None if labels is None else _position(labels, names, width, where)
    wanted = range(width) if columns is None else columns
    chosen = [_position(column, names, width, where) for column in wanted]
    titles = names or [str(i) for i in range(width)]
    chosen = [i for i in chosen if i != label]
    if twice := _twice(chosen):
        raise ValueError(f"{where}: columns= needs each once; got {titles[twice[0]]!r} twice.")
    if twice := _twice(titles[i] for i in chosen):
        raise ValueError(
            f"{where} has two columns called {twice[0]!r}. Rename one, or choose by number, from "
            f"0, with columns=..."
        )
    return _Layout(where, titles, chosen, label, 0)


def _twice(values: Iterable[Column]) -> list[Column]:
    return [value for value, count in Counter(values).items() if count > 1]


def _records(file: TextIO) -> Iterator[Record]:
    """The lines that hold cells; of comments at the top the last, if it is a header."""
    comment, above, line = "", -1, "#"
    while line.startswith("#") or line.isspace():
        comment = comment if line.isspace() else line.removeprefix("#")
        above, line = above + 1, file.readline()
    # Quoted names may hold what delimits others; a decimal comma goes with other delimiters.
    bare = re.sub(r'"[^"]*"', "", line)
    delimiter = next((mark for mark in "\t;," if mark in bare), " ")
    records = _parsed(itertools.chain([line], file), delimiter, above)
    first = list(itertools.islice(records, 1))
    for header, (_, below) in zip(_parsed([comment], delimiter, above - 1), first, strict=False):
        alike = len(header.cells) == len(below) and any(map(_is_number, below))
        if alike and _is_header(header.cells, below):
            yield header
    yield from first
    yield from records


def _parsed(lines: Iterable[str], delimiter: str, above: int) -> Iterator[Record]:
    lines = (line.strip() for line in lines) if delimiter == " " else lines
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield Record(above + reader.line_num, cells)


def _trailing(cells: list[str]) -> int:
    """How many cells at the end are empty."""
    return len(list(itertools.takewhile(lambda cell: not cell, reversed(cells))))


def _is_header(first: list[str], second: Sequence[str] = ()) -> bool:
    """Whether a word stands over a number, or over nothing but words."""
    words = [cell.lower() not in MISSING and not _is_number(cell) for cell in first]
    over = zip(words, second, strict=False)
    return any(word and _is_number(cell) for word, cell in over) or (
        any(words) and not any(map(_is_number, first))
    )


def _number(cell: str) -> float:
    """NaN for what is none."""
    try:
        return float(cell)
    except ValueError:
        return _TRUTH.get(cell.lower(), math.nan)


def _is_number(cell: str) -> bool:
    return not math.isnan(_number(cell))


def _position(column: Column, names: list[str], width: int, where: str) -> int:
    if isinstance(column, str) and names.count(column) == 1:
        return names.index(column)
    if not isinstance(column, str) or column.lstrip("-").isdigit():
        number = int(column)
        if -width <= number < width:
            return number % width
    known = listed(names) if names else "no names"
    raise ValueError(
        f"{where} has no single column {column!r}; it has columns 0 to {width - 1}: {known}."
    )


def _numbers(record: Record, layout: _Layout) -> list[float]:
    where, titles, chosen, _, spare = layout
    if len(record.cells) != len(titles) + spare or any(record.cells[len(titles) :]):
        raise ValueError(
            f"{where} has {len(record.cells)} cells in line {record.line} and {len(titles)} in "
            f"its first. Give every line as many."
        )
    try:
        numbers = [float(record.cells[i]) for i in chosen]
    except ValueError:
        numbers = [_number(record.cells[i]) for i in chosen]
    if all(map(math.isfinite, numbers)):
        return numbers
    bad = next(i for i, number in zip(chosen, numbers, strict=True) if not math.isfinite(number))
    cell, title = record.cells[bad], titles[bad]
    kind = "finite numbers" if _is_number(cell) else "numbers"
    raise ValueError(
        f"{where} needs {kind}; got {cell!r} in line {record.line}, column {title!r}. "
        f"{_remedy(cell, title)}."
    )


def _remedy(cell: str, title: str) -> str:
    """What to do about a cell that is no number."""
    if cell.lower() in MISSING:
        return "Fill it in, remove the line, or leave the column out with columns=..."
    if _is_number(cell):
        return "Remove the line, or leave the column out with columns=..."
    if _is_number(cell.replace(",", ".")):
        return "Write decimals with a point"
    return f"Leave the column out with columns=..., or say labels={title!r} if it holds classes"


def _word(record: Record, layout: _Layout) -> str:
    cell = record.cells[layout.label]
    if cell.lower() in MISSING:
        raise ValueError(
            f"{layout.where} needs a class in every line; got {cell!r} in line {record.line}, "
            f"column {layout.titles[layout.label]!r}. Fill it in or remove the line."
        )
    return cell


def _classes(words: list[str]) -> np.ndarray:
    """As numbers if all of them are, but true and false as words."""
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        return np.array(words)
    return numbers if np.isfinite(numbers).all() else np.array(words)
