"""Pictures of what time and budgets buy: brackets of log p(x), and ways to train."""

import numpy as np
import pytest

from bayesvae import plots
from bayesvae.plots import RouteCurve, WidthCurve

GUIDE = WidthCurve(
    [20, 50, 200], [0.9, 0.3, -0.01], [0.1, 0.05, 0.03], [-92.0, -91.5, -91.0], [0.3, 0.2, 0.1]
)
PRIOR = WidthCurve(
    [50, 100, 500], [4.0, 2.0, 0.5], [0.4, 0.3, 0.1], [-95.0, -93.0, -91.2], [0.5, 0.4, 0.2]
)
STARTS = {"guide": GUIDE, "prior": PRIOR}


def bars(container):
    """The line and the ends of its error bars."""
    line, _, (segments,) = container
    return line.get_xydata(), np.array(segments.get_segments())[..., 1]


def test_widths_and_lower_ends_are_drawn_with_their_errors():
    width, lower = plots.bracket_widths(STARTS).axes
    for i, curve in enumerate(STARTS.values()):
        for axes, value, error in (
            (width, curve.width, curve.width_stderr),
            (lower, curve.lower, curve.lower_stderr),
        ):
            line, ends = bars(axes.containers[i])
            np.testing.assert_allclose(line, np.stack([curve.budget, value], -1))
            expected = np.array(value)[:, None] + np.array(error)[:, None] * [-1, 1]
            np.testing.assert_allclose(ends, expected)


def test_a_width_of_either_sign_is_on_the_axis():
    width, _ = plots.bracket_widths(STARTS).axes
    heights = width.transData.transform([[50, w] for w in (-0.01, 0.0, 0.1, 1.0, 4.0)])[:, 1]
    assert (np.diff(heights) > 0).all()
    assert width.get_ylim()[0] < -0.01
    assert heights[3] - heights[2] == pytest.approx((heights[4] - heights[3]) / np.log10(4))


def labels(figure):
    return figure.axes[1].get_legend_handles_labels()[1]


def test_each_start_is_told_the_budget_of_the_highest_bound_that_all_reach():
    figure = plots.bracket_widths(STARTS)
    needed = 50 * 4 ** (0.3 / 0.5)
    assert labels(figure) == ["guide: at 110", "prior: at 500"]
    target, *reached = [line for line in figure.axes[1].lines if line.get_linestyle() == ":"][::-1]
    assert set(target.get_ydata()) == {-91.2}
    assert [line.get_xdata()[0] for line in reached[::-1]] == pytest.approx([needed, 500])
    assert "−91.20 nats" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize(
    ("target", "guide", "prior"),
    [(-91.1, "at 150", "not reached"), (-92.0, "at 20", "at 240"), (-99, "at 20", "at 50")],
)
def test_a_target_may_be_given_and_may_not_be_reached(target, guide, prior):
    figure = plots.bracket_widths(STARTS, target=target)
    assert labels(figure) == [f"guide: {guide}", f"prior: {prior}"]


def test_budgets_are_written_as_numbers_that_do_not_cover_each_other():
    many = WidthCurve(*[np.linspace(0.5, 1, 40)] * 5)
    for curves in (STARTS, {"guide": many._replace(budget=np.arange(100, 140))}):
        axes = plots.bracket_widths(curves, unit="gradients").axes[0]
        words = [float(tick.get_text()) for tick in axes.get_xticklabels()]
        assert words == pytest.approx(axes.get_xticks().tolist(), rel=0.01)
        assert 2 <= len(words) <= 9
        assert axes.get_xlabel() == "gradients"


SECONDS = np.array([1.0, 5.0, 20.0, 100.0])
FAST = RouteCurve(SECONDS, [-120.0, -110, -105, -104], [-121.0, np.nan, -107, -106.5], np.ones(4))
SLOW = RouteCurve(3 * SECONDS, [-130.0, -112, -104, -103])


def test_training_and_unseen_data_have_panels_of_one_scale():
    train, unseen = plots.training_routes({"amortized": FAST, "jointly": SLOW}).axes
    assert [axes.get_title("left") for axes in (train, unseen)] == ["training data", "unseen data"]
    assert train.get_ylim() == unseen.get_ylim()
    assert train.get_xlim() == unseen.get_xlim()
    np.testing.assert_allclose(train.lines[1].get_xydata(), np.stack(SLOW[:2], -1))
    assert len(unseen.lines) == 1
    assert unseen.lines[0].get_color() == train.lines[0].get_color()


def test_times_without_an_evaluation_are_left_out_and_errors_are_bands():
    train, unseen = plots.training_routes({"amortized": FAST}).axes
    np.testing.assert_allclose(unseen.lines[0].get_xdata(), SECONDS[[0, 2, 3]])
    band = train.collections[0].get_paths()[0].vertices
    for second, elbo in zip(*FAST[:2], strict=True):
        heights = band[band[:, 0] == second, 1]
        assert (heights.min(), heights.max()) == pytest.approx((elbo - 1, elbo + 1))


def test_the_first_seconds_do_not_flatten_the_rest_and_are_counted():
    steep = RouteCurve(np.arange(20.0), [-5000.0, *np.linspace(-110, -100, 19)])
    axes = plots.training_routes({"a": steep}).axes[0]
    assert axes.get_ylim()[0] > -130
    assert "points below the axis: 1, down to −5000" in axes.get_xlabel()
    assert axes.get_xscale() == "linear"
    assert plots.training_routes({"a": FAST}).axes[0].get_xscale() == "log"


def test_a_way_that_serves_no_unseen_data_needs_no_panel_for_them():
    assert len(plots.training_routes({"jointly": SLOW}).axes) == 1


MISTAKES = {
    "no start": (lambda: plots.bracket_widths({}), "`curves` must be one to 4.* got 0"),
    "falling": (
        lambda: plots.bracket_widths({"guide": GUIDE._replace(budget=[50, 20, 200])}),
        r"`curves\['guide'\].budget` must rise from above 0; got \[50.0, 20.0, 200.0\]",
    ),
    "lengths": (
        lambda: plots.bracket_widths({"guide": GUIDE._replace(lower=[-1.0])}),
        r"`curves\['guide'\].lower` must have the shape \(3,\)",
    ),
    "six ways": (
        lambda: plots.training_routes(dict.fromkeys("abcdef", FAST)), "one to 5.* got 6"
    ),
    "diverged": (
        lambda: plots.training_routes({"a": SLOW._replace(train=[np.nan] * 4)}),
        r"`curves\['a'\].train` must have a finite value",
    ),
    "times": (
        lambda: plots.training_routes({"a": SLOW._replace(unseen=[-1.0])}),
        r"`curves\['a'\].unseen` must have the shape \(4,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MISTAKES.values(), ids=MISTAKES)
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()
