"""The picture: log p(x) - ELBO of every set-up, cut into its two gaps."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bayesvae.core.estimates import mean_and_error
from bayesvae.plots.style import BLUE, ORANGE, WIDTH, despined
from benchmarks.inference_gaps.claims import ERRORS, Gaps, Run
from benchmarks.inference_gaps.setups import SETUPS

SPLITS = ("train", "unseen")
COLOURS = (BLUE, ORANGE)


def gap_bars(runs: Mapping[str, Run]) -> Figure:
    """A panel a data set and split; a bar a set-up, its lines two standard errors to each side.

    Args:
        runs: by data set.
    """
    figure = Figure(figsize=(WIDTH, 2.1 * len(runs) + 0.7), layout="constrained")
    shape = {"sharex": "row", "sharey": "row", "squeeze": False}
    panels = figure.subplots(len(runs), len(SPLITS), **shape)
    for line, (data, run) in zip(panels, runs.items(), strict=True):
        for axes, split in zip(line, SPLITS, strict=True):
            _panel(axes, run, split)
            axes.set_title(f"{data}, {split} images", loc="left", fontsize=10)
        line[0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("nats")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure


def _panel(axes: Axes, run: Run, split: str) -> None:
    for height, setup in enumerate(run.measured):
        left = 0.0
        for (name, values), colour in zip(_parts(run.gaps(setup, split)), COLOURS, strict=True):
            mean, error = mean_and_error(values)
            label = name if height == 0 else None
            axes.barh(height, mean, left=left, color=colour, height=0.6, label=label)
            left += mean
            axes.errorbar(left, height, xerr=ERRORS * error, color="black", linewidth=1)
    axes.set_yticks(range(len(run.measured)), [SETUPS[setup].title for setup in run.measured])
    despined(axes)


def _parts(gaps: Gaps) -> tuple[tuple[str, Tensor], ...]:
    return (
        ("approximation gap of the guide's family", gaps.approximation(gaps.own)),
        ("amortization gap", gaps.amortization),
    )
