"""Pictures of a latent-variable model: its samples, training, latents, inference gaps.

Functions take arrays and give axes or figures.  Figures are not pyplot's: nothing to close, no
display needed.  A picture is a file here; what all of them share is in `style`.  Of the package
they know only how to write a file (`bayesvae.core.files`).

A picture is imported when it is first asked for, and matplotlib with it: who draws nothing does
not wait for it.  No picture has the name of a file here, which would hide it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # as whoever reads types, and not runs them, sees this folder
    from bayesvae.plots.brackets import WidthCurve, bracket_widths
    from bayesvae.plots.calibration import RankCurves, calibration_figure
    from bayesvae.plots.curves import path_changes, training_curve
    from bayesvae.plots.decoded import decoded_grid, interpolations, traversals
    from bayesvae.plots.images import drawable, reconstructions, samples
    from bayesvae.plots.ladders import GapRow, gap_curves, gap_figure, gaps
    from bayesvae.plots.latents import latent_space
    from bayesvae.plots.ordered import gaps_against_evidence, ordered_gaps
    from bayesvae.plots.posterior_contours import posterior_panels, posteriors
    from bayesvae.plots.routes import RouteCurve, training_routes
    from bayesvae.plots.sides import bracketed
    from bayesvae.plots.style import Values, save
    from bayesvae.plots.tables import columns, reconstructed_columns
    from bayesvae.plots.worst import worst_data

_NAMES = {
    "brackets": ("WidthCurve", "bracket_widths"),
    "calibration": ("RankCurves", "calibration_figure"),
    "curves": ("path_changes", "training_curve"),
    "decoded": ("decoded_grid", "interpolations", "traversals"),
    "images": ("drawable", "reconstructions", "samples"),
    "ladders": ("GapRow", "gap_curves", "gap_figure", "gaps"),
    "latents": ("latent_space",),
    "ordered": ("gaps_against_evidence", "ordered_gaps"),
    "posterior_contours": ("posterior_panels", "posteriors"),
    "routes": ("RouteCurve", "training_routes"),
    "sides": ("bracketed",),
    "style": ("Values", "save"),
    "tables": ("columns", "reconstructed_columns"),
    "worst": ("worst_data",),
}
_FILES = {name: file for file, names in _NAMES.items() for name in names}

__all__ = [
    "GapRow",
    "RankCurves",
    "RouteCurve",
    "Values",
    "WidthCurve",
    "bracket_widths",
    "bracketed",
    "calibration_figure",
    "columns",
    "decoded_grid",
    "drawable",
    "gap_curves",
    "gap_figure",
    "gaps",
    "gaps_against_evidence",
    "interpolations",
    "latent_space",
    "ordered_gaps",
    "path_changes",
    "posterior_panels",
    "posteriors",
    "reconstructed_columns",
    "reconstructions",
    "samples",
    "save",
    "training_curve",
    "training_routes",
    "traversals",
    "worst_data",
]


def __getattr__(name: str) -> Any:
    """A picture, from its file (PEP 562)."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
