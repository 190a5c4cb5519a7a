"""What a pair is, and what can be read off it: programs, traces, terms, coordinates, estimates.

A pair of Pyro programs becomes per-datum terms log p(x | z), log p(z), log q(z | x) in `trace`,
the only file that reads Pyro's traces; everything above works on those terms.  No algorithm stands
here, and no part of a model.  It may use `compiler` and `data`.

Begin with `pair` and `trace`.  Its files are public to the rest of the package, each by its name.
"""

from bayesvae.core import (
    coordinates,
    dependence,
    distributions,
    estimates,
    evaluation,
    files,
    memory,
    pair,
    precision,
    programs,
    sites,
    soundness,
    tables,
    trace,
)

__all__ = [
    "coordinates",
    "dependence",
    "distributions",
    "estimates",
    "evaluation",
    "files",
    "memory",
    "pair",
    "precision",
    "programs",
    "sites",
    "soundness",
    "tables",
    "trace",
]
