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


def test_a_constant_column_explains_nothing(x):
    x[:, 0] = 3
    assert np.isnan(numbers(plots.reconstructed_columns(x, x))[0])


def test_traversals_say_what_their_values_are():
    means = np.random.default_rng(0).random((2, 5, 4, 4))
    figure = plots.traversals(means, np.linspace(-2, 2, 5), label="standard deviations")
    assert any("standard deviations" in text.get_text() for text in figure.findobj(_is_text))


def _is_text(artist):
    return hasattr(artist, "get_text")
