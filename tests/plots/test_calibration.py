"""What a calibration shows, in a table, a file and a figure."""

import csv

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.testing import assert_close

from bayesvae import plots
from bayesvae.diagnose import Calibration
from bayesvae.diagnose.findings import DENSITIES, findings


@pytest.fixture(scope="module")
def many():
    names = [*(f"z[{i}]" for i in range(30)), *DENSITIES]
    ranks = torch.randint(0, 100, (200, 32), generator=torch.Generator().manual_seed(0))
    ranks[:, 7] = 10 + ranks[:, 7] // 2
    k_hat = torch.linspace(-1, 2, 200, dtype=torch.double)
    return Calibration(ranks, 99, findings(names, ranks, 99), k_hat, "given 'w'", 1.0)


def test_the_table_shows_the_worst_of_many_latents_and_what_all_is_given(many):
    table = str(many)
    line = next(line for line in table.splitlines() if line.startswith("z[7]"))
    assert line.endswith("shifted up and too wide")
    assert f"{many.findings[7].shift:+.3f}" in line
    assert "latents with larger p-values, not shown: 10" in table
    assert "All of it given 'w'." in table
    assert "all tests together: p < 1e-6" in table


def test_csv_has_a_line_for_each_datum(many, tmp_path):
    many.to_csv(tmp_path / "new" / "ranks.csv")
    rows = list(csv.DictReader((tmp_path / "new" / "ranks.csv").read_text().splitlines()))
    assert [int(row["position"]) for row in rows] == list(range(200))
    assert [int(row["rank_z[7]"]) for row in rows] == many.ranks[:, 7].tolist()
    assert [int(row["rank_log_guide"]) for row in rows] == many.ranks[:, -1].tolist()
    assert_close(
        torch.tensor([float(row["k_hat"]) for row in rows]), many.k_hat, atol=1e-5, rtol=0
    )


def lines(axes):
    """What is drawn, by label."""
    return {line.get_label(): line for line in axes.lines}


def test_the_figure_colours_the_worst_latents_and_draws_the_others(many):
    first = many.figure().axes[0]
    labels = first.get_legend_handles_labels()[1]
    assert "z[7]: shifted up and too wide" in labels
    assert "26 other latents" in labels
    assert "log q(z | x): uniform within noise" in labels


LINE = torch.linspace(0.1, 0.9, 9, dtype=torch.double)


def curves(**changed):
    """Two latents of which one is drawn in colour."""
    flat = torch.zeros(9)
    given = {
        "shares": LINE,
        "low": flat - 0.1,
        "high": flat + 0.2,
        "latents": {"a": flat + 0.3, "b": flat - 0.05},
        "densities": {"log p": flat, "log q": flat},
        "levels": LINE,
        "coverage": {"a": LINE - 0.2},
        "set_coverage": LINE + 0.05,
        "ranks": {"a": torch.arange(200) // 4},
        "draws": 99,
        "k_hat": torch.cat([torch.full((150,), 0.4), torch.full((50,), torch.inf)]),
    }
    return plots.RankCurves(**given | changed)


def test_the_functions_start_and_end_on_the_diagonal_inside_of_their_band():
    axes = plots.calibration_figure(curves(verdicts={"a": "shifted up"})).axes[0]
    drawn = lines(axes)
    for label, value in {"a: shifted up": 0.3, "1 other latent": -0.05}.items():
        np.testing.assert_allclose(drawn[label].get_ydata(), [0, *[value] * 9, 0])
        np.testing.assert_allclose(drawn[label].get_xdata(), [0, *LINE, 1])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((-0.1, 0.2))


def test_coverage_is_drawn_in_points_above_what_was_stated():
    latent, together, _ = plots.calibration_figure(curves()).axes[1].lines
    np.testing.assert_allclose(latent.get_xdata(), 100 * LINE)
    np.testing.assert_allclose(latent.get_ydata(), -20)
    np.testing.assert_allclose(together.get_ydata(), 5)


def test_q_of_the_truth_is_a_density_over_data():
    band, stairs = plots.calibration_figure(curves()).axes[2].patches
    heights, edges, _ = stairs.get_data()
    np.testing.assert_allclose(heights, [2] * 10 + [0] * 10)
    np.testing.assert_allclose(edges, np.linspace(0, 1, 21))
    above, _, below = band.get_data()
    np.testing.assert_allclose((above + below) / 2, 1)


def test_infinite_k_hats_are_in_the_last_bar_and_counted():
    axes = plots.calibration_figure(curves()).axes[3]
    heights = [bar.get_height() for bar in axes.patches]
    assert (sum(heights), heights[-1]) == pytest.approx((100, 25))
    assert "25 % of the data" in axes.get_title("left")


MISTAKES = {
    "five colours": ({"coverage": dict.fromkeys("abcde", LINE)}, "one to 4 latents; got 5"),
    "other places": ({"low": LINE[:3]}, r"`low` must have the shape \(9,\)"),
    "other levels": ({"set_coverage": LINE[:3]}, r"`set_coverage` must have the shape"),
    "no numbers": ({"latents": {"a": LINE / 0}}, r"`latents\['a'\]` must be finite"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_errors_name_the_argument_and_what_was_received(name):
    changed, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        plots.calibration_figure(curves(**changed))


def test_the_figure_is_not_pyplots():
    figure = plots.calibration_figure(curves())
    assert type(figure) is Figure
    assert not hasattr(figure, "number")
    assert len(figure.axes) == 4
