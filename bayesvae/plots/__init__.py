"""Pictures of a latent-variable model: its samples, training, latents, inference gaps.

Functions take arrays and give axes or figures.  Figures are not pyplot's: nothing to close, no
display needed.  A picture is a file here; what all of them share is in `style`.  Of the package
they know only how to write a file (`bayesvae.core.files`).
"""

from bayesvae.plots.brackets import WidthCurve, bracket_widths
from bayesvae.plots.calibration import RankCurves, calibration_figure
from bayesvae.plots.curves import path_changes, training_curve
from bayesvae.plots.decoded import decoded_grid, interpolations, traversals
from bayesvae.plots.images import drawable, reconstructions, samples
from bayesvae.plots.ladders import GapRow, gap_curves, gap_figure, gaps
from bayesvae.plots.latents import latent_space
from bayesvae.plots.ordered import gaps_against_evidence, ordered_gaps
from bayesvae.plots.posteriors import posterior_panels, posteriors
from bayesvae.plots.routes import RouteCurve, training_routes
from bayesvae.plots.sides import bracketed
from bayesvae.plots.style import Values, save
from bayesvae.plots.tables import columns, reconstructed_columns
from bayesvae.plots.worst import worst_data

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
