"""Tables of numbers from text: delimiter and header are found, cells that are no numbers named."""

from __future__ import annotations

import csv
import itertools
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from bayesvae.data.raw import Raw, classes

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
    """The columns of a table: their titles, those of data, and that of classes."""

    where: str
    titles: list[str]
    chosen: list[int]
    label: int | None


def _table(
    records: Iterator[Record],
    where: str,
    columns: Sequence[Column] | None,
    labels: Column | None,
) -> Raw:
    head = list(itertools.islice(records, 2))
    if not head:
        raise ValueError(f"{where} is empty; a table needs lines of numbers.")
    first, named = head[0].cells, _is_header(*(record.cells for record in head))
    layout = _layout(first, named, where, columns, labels)
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
    return _Layout(where, titles, [i for i in chosen if i != label], label)


def _records(file: TextIO) -> Iterator[Record]:
    first = next((line for line in file if line.strip()), "")
    # Quoted names may hold what delimits others; a decimal comma goes with other delimiters.
    bare = re.sub(r'"[^"]*"', "", first)
    delimiter = next((mark for mark in "\t;," if mark in bare), " ")
    file.seek(0)
    # Numpy marks its header line as a comment.
    lines = (line.removeprefix("#") if i == 0 else line for i, line in enumerate(file))
    if delimiter == " ":
        lines = (line.strip() for line in lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield Record(reader.line_num, cells)


def _is_header(first: list[str], second: Sequence[str] = ()) -> bool:
    """Whether a word stands over a number, or over nothing but words."""
    words = [cell.lower() not in MISSING and not _is_number(cell) for cell in first]
    over = zip(words, second, strict=False)
    return any(word and _is_number(cell) for word, cell in over) or (
        any(words) and not any(map(_is_number, first))
    )


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _position(column: Column, names: list[str], width: int, where: str) -> int:
    if isinstance(column, str) and names.count(column) == 1:
        return names.index(column)
    if not isinstance(column, str) or column.lstrip("-").isdigit():
        number = int(column)
        if -width <= number < width:
            return number % width
    known = ", ".join(names) if names else "no names"
    raise ValueError(
        f"{where} has no single column {column!r}; it has columns 0 to {width - 1}: {known}."
    )


def _numbers(record: Record, layout: _Layout) -> list[float]:
    where, titles, chosen, _ = layout
    if len(record.cells) != len(titles):
        raise ValueError(
            f"{where} has {len(record.cells)} cells in line {record.line} and {len(titles)} in "
            f"its first. Give every line as many."
        )
    try:
        numbers = [float(record.cells[i]) for i in chosen]
    except ValueError:
        numbers = [math.nan]
    if all(map(math.isfinite, numbers)):
        return numbers
    bad = next(i for i in chosen if not _is_number(record.cells[i]))
    cell, missing = record.cells[bad], record.cells[bad].lower() in MISSING
    remedy = (
        f"Leave the column out with columns=..., or say labels={titles[bad]!r} if it holds classes"
    )
    if missing:
        remedy = "Fill it in, remove the line, or leave the column out with columns=..."
    elif _is_number(cell.replace(",", ".")):
        remedy = "Write decimals with a point"
    raise ValueError(
        f"{where} needs numbers; got {cell!r} in line {record.line}, column {titles[bad]!r}. "
        f"{remedy}."
    )


def _word(record: Record, layout: _Layout) -> str:
    cell = record.cells[layout.label]
    if cell.lower() in MISSING:
        raise ValueError(
            f"{layout.where} needs a class in every line; got {cell!r} in line {record.line}, "
            f"column {layout.titles[layout.label]!r}. Fill it in or remove the line."
        )
    return cell


def _classes(words: list[str]) -> np.ndarray:
    return np.array([float(word) for word in words] if all(map(_is_number, words)) else words)
