"""Text in columns."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as lines of text, each column as wide as its widest cell.

    Example:
        >>> print(aligned([("site", "kind"), ("z", "latent")]))
        site  kind
        z     latent
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
