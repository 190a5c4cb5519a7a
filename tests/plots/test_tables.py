"""Reconstructed tables: dots where the numbers are, the share of variance that they explain."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from bayesvae import plots


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 5)) * [1, 10, 0.1, 3, 1] + 4


def numbers(figure):
    return [float(axes.get_title(loc="left").replace("−", "-")) for axes in figure.axes]


def test_the_number_is_the_share_of_variance_explained(x):
    means = x + np.random.default_rng(1).normal(size=x.shape) * [0.1, 5, 0.2, 0, 1]
    figure = plots.reconstructed_columns(x, means, list("abcde"))
    expected = [r2_score(x[:, j], means[:, j]) for j in range(5)]
    np.testing.assert_allclose(numbers(figure), expected, atol=0.005)
    assert min(expected) < 0
    assert [axes.get_xlabel() for axes in figure.axes] == list("abcde")


def test_the_dots_are_the_data_against_their_reconstructions(x):
    axes = plots.reconstructed_columns(x, 2 * x).axes[1]
    np.testing.assert_array_equal(
        axes.collections[0].get_offsets(), np.stack([x, 2 * x], -1)[:, 1]
    )


def test_many_columns_are_cut_and_counted(x):
    wide = np.tile(x, 4)
    figure = plots.reconstructed_columns(wide, wide)
    assert len(figure.axes) == 12
    assert "the first 12 of 20 columns" in figure.get_suptitle()


@pytest.mark.parametrize("means", [np.zeros((300, 4)), np.full((300, 5), np.nan), np.zeros(300)])
def test_other_tables_are_refused(x, means):
    with pytest.raises(ValueError, match="Pass finite tables"):
        plots.reconstructed_columns(x, means)


@pytest.mark.parametrize("value", [3.0, 0.0, 1e-9, 123456.7, -1e9 - 1 / 3])
def test_a_constant_column_is_called_so_and_has_one_plain_tick(x, value):
    x[:, 0] = value * (1 + 1e-9 * (np.arange(300) % 2))
    for figure in (plots.reconstructed_columns(x, x), plots.columns(x, x)):
        axes = figure.axes[0]
        figure.canvas.draw()
        assert axes.xaxis.get_offset_text().get_text() == ""
        (tick,) = axes.get_xticklabels()
        assert float(tick.get_text().replace("−", "-")) == pytest.approx(value, rel=1e-5)
        assert axes.get_xlim()[0] < x[0, 0] < axes.get_xlim()[1]
    assert plots.reconstructed_columns(x, x).axes[0].get_title("left") == "constant"


LONG = ["a column with a very long name indeed", "a column with a very long name as well", "b"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: plots.columns(x, x, LONG),
        lambda x: plots.reconstructed_columns(x, x, LONG),
        lambda x: plots.interpolations(x[None, :5], dimensions=LONG),
        lambda x: plots.traversals(x[None, :5], range(5), dimensions=LONG),
    ],
)
def test_long_names_are_cut_in_the_middle_and_stay_apart(x, draw):
    figure = draw(x[:, :3])
    words = [axes.get_xlabel() for axes in figure.axes]
    words = words if len(words) > 1 else [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert len(set(words)) == 3
    assert max(map(len, words)) == 20
    assert words[2] == "b"
    assert [(word[:8], word[-6:]) for word in words[:2]] == [
        ("a column", "indeed"),
        ("a column", "s well"),
    ]


@pytest.mark.parametrize("event", [(4, 4), (6,)])
def test_a_note_stands_below_traversals(event):
    means = np.random.default_rng(0).random((2, 5, *event))
    figure = plots.traversals(means, range(5), note="sorted by variance")
    assert figure.get_supxlabel() == "sorted by variance"
    plain = plots.traversals(means, range(5))
    assert plain.get_supxlabel() == ""
    assert figure.get_size_inches()[1] > plain.get_size_inches()[1]


def test_traversals_say_what_their_values_are():
    means = np.random.default_rng(0).random((2, 5, 4, 4))
    figure = plots.traversals(means, np.linspace(-2, 2, 5), label="standard deviations")
    assert any("standard deviations" in text.get_text() for text in figure.findobj(_is_text))


def _is_text(artist):
    return hasattr(artist, "get_text")
