"""Scales and numbers in pictures: what is black and white, where ticks are, how they read."""

import numpy as np
import pytest
import torch

from bayesvae import plots


def test_outliers_of_the_draws_do_not_wash_out_the_means_which_is_said():
    means = torch.linspace(-0.1, 1.1, 1000).double().reshape(10, 10, 10)
    draws = means.clone()
    draws[0] += 50
    figure = plots.samples(means, draws, noise=True)
    axes = figure.axes[0]
    low, high = np.quantile(means, (0.01, 0.99))
    for image in [*axes.images[:10], *axes.images[20:]]:
        assert image.get_clim() == pytest.approx((low, high))
    noise = axes.images[10].get_clim()
    assert noise[1] - noise[0] == pytest.approx(high - low), "noise is as large as it looks"
    assert "the middle 98 % of the means' values" in axes.get_xlabel()
    assert plots.samples(means / 2 + 0.1).axes[0].get_xlabel() == ""


SHAPES = [
    (),
    (5,),
    (0,),
    (4, 5),
    (1, 4, 5),
    (3, 4, 5),
    (4, 5, 3),
    (2, 4, 5),
    (3, 0, 4),
    (2, 3, 4, 5),
]


@pytest.mark.parametrize("event", SHAPES)
def test_drawable_says_what_samples_does(event):
    x = torch.rand(2, *event)
    for draw in (plots.samples, lambda x: plots.reconstructions(x, x)):
        if plots.drawable(event):
            draw(x)
        else:
            with pytest.raises(ValueError, match="must"):
                draw(x)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (110.2, 4321.0, "110 …\n4320"), (0.9923, 1.0, "0.9923 …\n1"), (0.0, 4.0, "0 …\n4"),
        (-5e-8, 1.0, "0 …\n1"), (2.0, 2.0, "2"), (99.96, 100.04, "99.96 …\n100.04"),
    ],
)  # fmt: skip
def test_ends_of_a_range_are_plain_numbers_that_differ(low, high, text):
    means = np.array([[[low], [high]]])
    axes = plots.interpolations(means).axes[0]
    assert [each.get_text() for each in axes.texts] == [text]


def test_steps_are_written_as_they_are():
    for steps, words in ((9, ["0", "0.125", "0.25"]), (5, ["0", "0.25", "0.5"])):
        axes = plots.interpolations(np.random.rand(1, steps, 4, 4)).axes[0]
        assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == words


def test_ticks_of_the_mosaic_are_round_and_where_they_belong():
    first, second = np.linspace(-2.317, 2.87, 15), np.sinh(np.linspace(-1.3, 1.3, 14))
    axes = plots.decoded_grid(np.random.rand(14, 15, 4, 4), first, second).axes[0]
    for axis, line in ((axes.xaxis, first), (axes.yaxis, second)):
        words = [tick.get_text().replace("−", "-") for tick in axis.get_ticklabels()]
        assert len(words) >= 3
        assert all(len(word.lstrip("-")) <= 3 for word in words)
        place = np.interp(axis.get_ticklocs(), np.arange(len(line)), line)
        np.testing.assert_allclose([float(word) for word in words], place, atol=1e-9)
