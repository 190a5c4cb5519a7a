"""The picture of every datum's bracket shows the widths that it was given."""

import numpy as np
import pytest

from bayesvae import plots


def test_every_datum_stands_at_its_width_with_its_error():
    axes = plots.bracketed([-90.0, -80.0, -85.0], [0.3, -0.1, 0.1], [0.1, 0.2, 0.0])
    (points,) = axes.containers
    line, _, (bars,) = points
    np.testing.assert_allclose(line.get_xdata(), [-90.0, -80.0, -85.0])
    np.testing.assert_allclose(line.get_ydata(), [0.3, -0.1, 0.1])
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, [[0.2, 0.4], [-0.3, 0.1], [0.1, 0.1]], atol=1e-12)


def test_the_mean_is_drawn_and_written_with_a_minus_that_is_one():
    axes = plots.bracketed([-90.0, -80.0], [-0.3, 0.1], [0.1, 0.1])
    assert axes.get_legend_handles_labels()[1][0] == "mean −0.10 ± 0.20 nats"
    assert any(np.allclose(line.get_ydata(), -0.1) for line in axes.lines)


def test_a_single_chain_has_no_bars_and_is_drawn_all_the_same():
    axes = plots.bracketed([-90.0], [0.2], [np.nan])
    assert axes.get_legend_handles_labels()[1][0] == "mean 0.20 nats"
    axes.figure.canvas.draw()


def test_given_axes_are_drawn_on():
    axes = plots.bracketed([-90.0], [0.2], [0.1])
    assert plots.bracketed([-80.0], [0.1], [0.1], axes=axes) is axes


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        (([-90.0], [0.1, 0.2], [0.1]), "width"),
        (([-90.0], [0.1], [0.1, 0.2]), "stderr"),
        (([np.nan], [0.1], [0.1]), "lower"),
        (([-90.0], [np.inf], [0.1]), "width"),
    ],
)
def test_arrays_that_are_not_alike_are_refused(arrays, name):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        plots.bracketed(*arrays)
