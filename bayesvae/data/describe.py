"""What kind of numbers data are, which decides which likelihoods they can have.

Bits suit a Bernoulli likelihood, grey levels one too once they are binarised, whole numbers a
Poisson or categorical one, real numbers a normal one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesvae.data.loaders import loader
from bayesvae.data.mapped import Mapped

_FEW = 10


class Description(NamedTuple):
    """The kind of data that was seen, in words and numbers.

    Attributes:
        kind: "binary" (zeros and ones), "grey" (in [0, 1]), "whole" (numbers), or "real".
        low: Least value.
        high: Greatest value.
        inside: Share of values strictly between 0 and 1.
        constant: Number of columns, or entries of an image, that are the same in all rows seen.
        text: All this as a phrase.
    """

    kind: str
    low: float
    high: float
    inside: float
    constant: int
    text: str


def describe(x: Tensor | Mapped | np.ndarray, limit: int = 2**26) -> Description:
    """Return what kind of numbers data are.

    Args:
        x: Data of shape ``(N, *event)``.
        limit: Number of values to look at; of more, rows evenly spread are judged.

    Returns:
        The description, whose text says how many rows it was judged by if not by all.

    Raises:
        TypeError: If `x` is no data in memory or on disk.
        ValueError: If it is empty or not finite, or `limit` below one.

    Example:
        >>> describe(torch.eye(3)).text
        '3 columns of 0 and 1: binary; only 3 rows, too few to learn from'
        >>> describe(torch.tensor([[0.5, -1], [0.5, 3]]).repeat(9, 1)).text
        '2 columns of real numbers from -1 to 3; 1 of them constant'
    """
    if limit < 1:
        raise ValueError(f"describe needs limit >= 1; got {limit}.")
    seen = _seen(loader(x).x, limit)
    low, high = (end.item() for end in torch.aminmax(seen))
    inside = int(((seen > 0) & (seen < 1)).count_nonzero()) / seen.numel()
    constant = int((seen == seen[:1]).all(0).count_nonzero()) if len(seen) > 1 else 0
    kind = "real"
    if bool((seen == seen.round()).all()):
        kind = "binary" if low >= 0 and high <= 1 else "whole"
    elif low >= 0 and high <= 1:
        kind = "grey"
    text = f"{_event(x.shape[1:])} {_values(kind, low, high, inside)}"
    text += f"; {constant:,} of them constant" if constant else ""
    text += f"; only {_rows(len(x))}, too few to learn from" if len(x) < _FEW else ""
    text += f" (judged by {len(seen):,} of {len(x):,} rows)" if len(seen) < len(x) else ""
    return Description(kind, low, high, inside, constant, text)


def _seen(x: Tensor | Mapped, limit: int) -> Tensor:
    """Values of some rows or all, one column for each entry of a datum."""
    columns = x.shape[1:].numel()
    count = min(len(x), max(1, limit // columns))
    if count < len(x):
        x = x[torch.linspace(0, len(x) - 1, count, dtype=torch.float64).long()]
    x = x.read() if isinstance(x, Mapped) else x
    return x.to(torch.get_default_dtype()).reshape(count, columns)


def _event(shape: torch.Size) -> str:
    if len(shape) < 2:
        return f"{shape.numel():,} column{'s' if shape.numel() > 1 else ''}"
    kind = "images" if len(shape) == 3 else "arrays"
    return f"{' x '.join(map(str, shape))} {kind}"


def _values(kind: str, low: float, high: float, inside: float) -> str:
    if kind == "binary":
        return "of 0 and 1: binary"
    if kind == "grey":
        return f"in [0, 1], {_percent(inside)} strictly inside: grey"
    if kind == "whole":
        meaning = ": counts or levels" if low >= 0 else ""
        return f"of whole numbers from {int(low):,} to {int(high):,}{meaning}"
    return f"of real numbers from {low:.4g} to {high:.4g}"


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.005 else "under 1 %"
