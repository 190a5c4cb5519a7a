"""Pictures of a latent-variable model: its samples, its training, its inference gaps.

Functions take arrays and give axes or figures.  Figures are not pyplot's: nothing to close, no
display needed.
"""

from bayesvae.plots.curves import training_curve
from bayesvae.plots.images import reconstructions, samples
from bayesvae.plots.ladders import GapRow, gap_curves, gap_figure, gaps
from bayesvae.plots.style import Values, save

__all__ = [
    "GapRow",
    "Values",
    "gap_curves",
    "gap_figure",
    "gaps",
    "reconstructions",
    "samples",
    "save",
    "training_curve",
]
