"""What the pictures say: the arrays shown, the lengths of the bars, the words at the axes."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae import plots
from bayesvae.plots import GapRow

EPOCHS = list(range(1, 41))
CURVE = [-500.0, *(-14 - 2 * 0.9**epoch for epoch in EPOCHS[1:])]


def bounds(n=200, seed=0):
    """Per-datum bounds whose levels vary far more than their differences."""
    random = np.random.default_rng(seed)
    evidence = random.normal(-14.2, 10.0, n)
    normal = evidence - random.gamma(2.0, 0.35, n)
    guide = normal - random.gamma(2.0, 0.45, n)
    return evidence, guide, {"Normal": normal, "Flow": evidence - 0.1}


def row(split="test", own="Normal", **shape):
    evidence, guide, optima = bounds(**shape)
    return GapRow(split, evidence, guide, optima, own)


def undivided(n=3):
    return GapRow("test", torch.zeros(n), -torch.arange(1.0, n + 1))


def words(axes):
    texts = [*axes.texts, *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    texts += axes.get_legend().get_texts() if axes.get_legend() else []
    return [text.get_text() for text in texts]


def shown(figure):
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def posteriors(n=2, guides=("encoder",), draw=plots.posteriors):
    """Standard normals on a grid, with as many approximations equal to them."""
    line = torch.linspace(-4, 4, 41)
    log_p = -0.5 * (line[:, None] ** 2 + line**2).repeat(n, 1, 1)
    log_q = log_p - torch.log(torch.tensor(2 * torch.pi))
    return draw(line, line, log_p, dict.fromkeys(guides, log_q))


FIGURES = {
    "samples": lambda: plots.samples(torch.rand(12, 1, 4, 4), torch.rand(12, 1, 4, 4)),
    "samples with noise": lambda: plots.samples(
        torch.rand(3, 4, 4), torch.randn(3, 4, 4), noise=True
    ),
    "one sample": lambda: plots.samples(torch.rand(1, 5, 3)),
    "colour": lambda: plots.samples(torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), noise=True),
    "a constant": lambda: plots.samples(torch.full((2, 4, 4), 7.0), torch.full((2, 4, 4), 7.0)),
    "vectors": lambda: plots.samples(torch.randn(6, 9), torch.randn(6, 9), noise=True),
    "reconstructions": lambda: plots.reconstructions(torch.rand(12, 4, 4), torch.rand(12, 4, 4)),
    "vector reconstructions": lambda: plots.reconstructions(torch.rand(6, 9), torch.rand(6, 9)),
    "training": lambda: plots.training_curve(EPOCHS, CURVE, CURVE).figure,
    "one epoch": lambda: plots.training_curve([1], [-14.0]).figure,
    "gaps": lambda: plots.gap_figure([row("train"), row("test", seed=1)]),
    "gaps of no family": lambda: plots.gap_figure([row(own=None)]),
    "one datum": lambda: plots.gap_figure([row(n=1)]),
    "five splits": lambda: plots.gap_figure([row(str(i), n=9) for i in range(5)]),
    "one latent": lambda: plots.latent_space(torch.randn(50, 1), torch.arange(50) % 3).figure,
    "two latents": lambda: (
        plots.latent_space(torch.randn(50, 2), torch.arange(50) % 10, torch.randn(60, 2)).figure
    ),
    "many latents": lambda: plots.latent_space(torch.randn(50, 8), torch.rand(50)).figure,
    "codes in one place": lambda: plots.latent_space(torch.ones(5, 2)).figure,
    "decoded grid": lambda: plots.decoded_grid(torch.rand(2, 3, 4, 4), [0, 1, 2], [0, 1]),
    "decoded colour": lambda: plots.decoded_grid(torch.randn(2, 2, 3, 4, 5), [0, 1], [0, 1]),
    "interpolations": lambda: plots.interpolations(torch.rand(2, 5, 4, 4), torch.rand(2, 2, 4, 4)),
    "vectors between": lambda: plots.interpolations(torch.rand(2, 5, 40), torch.rand(2, 2, 40)),
    "one step between": lambda: plots.interpolations(torch.rand(1, 1, 4, 4)),
    "traversals": lambda: plots.traversals(torch.randn(2, 3, 1, 4, 4), [-1, 0, 1]),
    "traversals of vectors": lambda: plots.traversals(
        torch.zeros(2, 3, 5), [-1, 0, 1], dimensions=["a", "b", "much longer", "d", "e"]
    ),
    "a posterior": lambda: posteriors(1),
    "posteriors": lambda: posteriors(5, "abcd"),
    "panels": lambda: posteriors(2, "abcdef", plots.posterior_panels),
    "ordered gaps": lambda: plots.ordered_gaps([row("train"), row(n=1)]).figure,
    "gaps against evidence": lambda: plots.gaps_against_evidence([row("train"), row(n=1)]).figure,
    "worst images": lambda: plots.worst_data(*torch.rand(2, 12, 3, 4, 4), *torch.rand(2, 12)),
    "worst vectors": lambda: plots.worst_data(*torch.rand(2, 12, 50), *torch.rand(2, 12)),
    "widths": lambda: plots.bracket_widths({"guide": plots.WidthCurve(*[[1.0]] * 5)}),
    "routes": lambda: plots.training_routes({"a": plots.RouteCurve([0.0], [-1.0], [-2.0])}),
    "table": lambda: plots.columns(torch.randn(20, 15), torch.randn(30, 15)),
    "constant column": lambda: plots.columns(torch.full((20, 1), 1.5), torch.randn(30, 1)),
    "plane": lambda: plots.columns(torch.randn(20, 2), torch.randn(30, 2)),
    "paths": lambda: (
        plots.path_changes({"VAE": torch.rand(5, 9), "other": torch.rand(3, 4)}).figure
    ),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
def test_draws_headless_without_warning_or_global_state(make):
    before = dict(matplotlib.rcParams)
    figure = make()
    figure.savefig(io.BytesIO(), format="png")
    assert type(figure) is Figure
    assert not hasattr(figure, "number"), "pyplot knows this figure and would keep it alive"
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("channels", [(), (1,)])
def test_samples_shows_each_mean_then_each_draw_unchanged(channels):
    means = torch.rand(7, *channels, 4, 5, dtype=torch.float64)
    draws = torch.bernoulli(means)
    images = shown(plots.samples(means, draws, columns=3))
    expected = torch.cat([means, draws]).reshape(14, 4, 5)
    np.testing.assert_array_equal(np.stack(images), expected)


def test_samples_keeps_a_datum_in_the_same_place_in_every_block():
    images = plots.samples(torch.rand(7, 4, 4), torch.rand(7, 4, 4), columns=3).axes[0].images
    left_and_top = np.array([(i.get_extent()[0], i.get_extent()[3]) for i in images])
    offsets = left_and_top[7:] - left_and_top[:7]
    np.testing.assert_allclose(offsets, np.broadcast_to([0.0, 3.2], (7, 2)))


def test_noise_is_what_is_added_to_the_mean_with_zero_as_mid_grey():
    means, draws = torch.rand(4, 5, 5).double(), torch.randn(4, 5, 5).double()
    figure = plots.samples(means, draws, noise=True)
    mean, noise, draw = np.split(np.stack(shown(figure)), 3)
    np.testing.assert_allclose(mean + noise, draw, atol=1e-12)
    low, high = figure.axes[0].images[4].get_clim()
    assert low == -high
    assert [name.split("\n")[0] for name in names(figure)] == ["mean", "+ noise", "= draw"]


def test_draws_outside_the_unit_interval_do_not_wash_out_the_means():
    figure = plots.samples(torch.rand(4, 5, 5), 5 * torch.randn(4, 5, 5))
    assert {image.get_clim() for image in figure.axes[0].images} == {(0.0, 1.0)}


def test_a_single_epoch_is_seen_and_is_the_only_tick():
    axes = plots.training_curve([3], [-14.0], [-15.0])
    assert axes.get_xticks().tolist() == [3]
    for line in axes.lines[:2]:
        assert line.get_marker() == "o"
    assert axes.lines[2].get_fillstyle() == "none", "the best epoch would hide the point"


def test_a_scale_other_than_zero_to_one_is_written_down():
    x = torch.tensor([-2.0, 3.0]).repeat(3, 8).unflatten(-1, (4, 4))
    assert names(plots.samples(x)) == ["mean\n−2 (black)\n3 (white)"]


def test_colour_images_have_their_channels_last_and_stay_in_range(caplog):
    means = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    images = shown(plots.samples(means, means + torch.randn(2, 3, 4, 5), noise=True))
    np.testing.assert_allclose(images[1], means[1].permute(1, 2, 0))
    assert all(image.min() >= 0 and image.max() <= 1 for image in images)
    assert not caplog.records, "matplotlib had to clip"


def test_vectors_are_one_heat_map_for_each_block_not_an_image_for_each_datum():
    means = torch.randn(6, 16, dtype=torch.float64)
    figure = plots.samples(means, means + 1)
    np.testing.assert_array_equal(np.stack(shown(figure)), torch.stack([means, means + 1]))
    assert "entry" in figure.axes[0].get_xlabel()


def test_reconstructions_stand_below_their_originals():
    x = torch.rand(7, 4, 4, dtype=torch.float64)
    figure = plots.reconstructions(x, x**2, columns=5)
    order = torch.cat([x[:5], x[:5] ** 2, x[5:], x[5:] ** 2])
    np.testing.assert_array_equal(np.stack(shown(figure)), order)
    assert names(figure) == ["original", "reconstruction"] * 2
    extents = [image.get_extent() for image in figure.axes[0].images]
    assert extents[0][:2] == extents[5][:2] == extents[10][:2]


def test_training_curve_is_not_flattened_by_the_first_epochs_and_says_so():
    axes = plots.training_curve(EPOCHS, CURVE)
    low, high = axes.get_ylim()
    assert low > -20
    assert low < np.quantile(CURVE, 0.25)
    assert high > max(CURVE)
    below = np.sum(np.array(CURVE) < low)
    assert axes.get_title("left") == f"epochs below the axis: {below}, down to −500"
    assert axes.get_ylabel() == "ELBO (nats per datum)"


def test_training_curve_cuts_nothing_off_a_steady_climb():
    axes = plots.training_curve(EPOCHS, [-100.0 + epoch for epoch in EPOCHS])
    assert axes.get_ylim()[0] <= -99
    assert axes.get_title("left") == ""


def test_the_best_epoch_is_of_validation_and_ignores_epochs_not_evaluated():
    validation = [-20.0, float("nan"), -18.0, float("nan"), -19.0]
    axes = plots.training_curve([0, 1, 2, 3, 4], [-20.0, -19, -18, -17, -16], validation)
    assert "best: −18.00, epoch 2" in words(axes)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [0, 2, 4])


def test_bars_are_as_long_as_the_gaps_and_end_at_log_evidence():
    evidence, guide, optima = bounds()
    amortization, approximation = plots.gaps([row()]).patches
    assert amortization.get_x() == 0
    expected = (optima["Normal"] - guide).mean(), (evidence - optima["Normal"]).mean()
    np.testing.assert_allclose(amortization.get_width(), expected[0])
    np.testing.assert_allclose(approximation.get_width(), expected[1])
    end = approximation.get_x() + approximation.get_width()
    np.testing.assert_allclose(end, (evidence - guide).mean())


def test_negative_gap_reaches_back_from_where_the_first_ended():
    values = GapRow("test", [-14.0] * 3, [-15.0] * 3, {"Normal": [-13.5] * 3}, "Normal")
    amortization, approximation = plots.gaps([values]).patches
    assert amortization.get_width() == 1.5
    assert (approximation.get_x(), approximation.get_width()) == (1.5, -0.5)


def test_standard_errors_are_of_the_paired_differences():
    _, guide, optima = bounds()
    paired = (optima["Normal"] - guide).std(ddof=1) / len(guide) ** 0.5
    axes = plots.gaps([row()])
    bar = axes.containers[1].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(np.ptp(bar[:, 0]) / 2, paired)
    assert f"{(optima['Normal'] - guide).mean():.3f} ± {paired:.3f}" in words(axes)


def test_another_familys_optimum_is_marked_at_its_gain_over_the_guide():
    evidence, guide, _ = bounds()
    axes = plots.gaps([row()])
    np.testing.assert_allclose(
        axes.containers[-1].lines[0].get_xdata(orig=False), (evidence - 0.1 - guide).mean()
    )
    assert {"guide → Normal q*", "Normal q* → log p(x)", "guide → Flow q*"} <= {*words(axes)}


def test_guide_of_no_one_family_has_one_undivided_gap():
    axes = plots.gaps([undivided()])
    assert [bar.get_width() for bar in axes.patches] == [2.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "inference gap",
        "log p(x)",
    ]


def test_single_datum_claims_no_standard_error():
    assert not any("±" in text.get_text() for text in plots.gaps([undivided(n=1)]).texts)


def test_every_split_is_drawn_on_the_same_axis_under_its_name():
    rows = [row(name, n=9) for name in "abcde"]
    assert len(plots.gaps(rows).patches) == 10
    assert {*"abcde"} <= {*words(plots.gaps(rows))}
    assert len(plots.gap_curves(rows).get_legend().get_texts()) == 10


def test_curves_are_sorted_each_by_itself_and_average_to_the_bars():
    bars, curves = plots.gap_figure([row()]).axes
    for bar, line in zip(bars.patches, curves.lines, strict=False):
        gap = line.get_ydata()
        assert (np.diff(gap) >= 0).all()
        np.testing.assert_allclose(gap.mean(), bar.get_width())
        assert line.get_color() == matplotlib.colors.to_hex(bar.get_facecolor()).upper()


def test_a_family_called_guide_does_not_replace_the_guide():
    values = GapRow("test", [0.0, 0.0], [-3.0, -3.0], {"guide": [-1.0, -1.0]}, "guide")
    assert [bar.get_width() for bar in plots.gaps([values]).patches] == [2.0, 1.0]


@pytest.mark.parametrize("draw", [plots.gaps, plots.gap_curves])
def test_axes_units_are_nats(draw):
    axes = draw([row()])
    assert "nats" in axes.get_xlabel() + axes.get_ylabel()


def test_given_axes_are_drawn_on_and_returned():
    figure = Figure()
    upper, middle, lower = figure.subplots(3)
    assert plots.training_curve(EPOCHS, CURVE, axes=upper) is upper
    assert plots.gaps([row()], middle) is middle
    assert plots.gap_curves([row()], lower) is lower
    assert all(isinstance(axes, Axes) and len(axes.lines) for axes in figure.axes)


IMAGES = torch.rand(3, 4, 4)
ROWS = torch.rand(2, 5, 4, 4)
CODES = torch.randn(9, 2)
ERRORS = {
    "channels": (lambda: plots.samples(torch.rand(3, 2, 4, 4)), r"`means` must .* \(3, 2, 4, 4\)"),
    "a single vector": (lambda: plots.samples(torch.rand(4)), r"`means` must hold one .*\(4,\)"),
    "no images": (lambda: plots.samples(IMAGES[:0]), r"`means` must hold one .*\(0, 4, 4\)"),
    "fewer draws": (lambda: plots.samples(IMAGES, IMAGES[:2]), r"`draws` .*\(3, 4, 4\).*\(2, 4"),
    "NaN": (lambda: plots.samples(IMAGES / 0 * 0), r"`means` must be finite; 48 entries"),
    "noise of nothing": (lambda: plots.samples(IMAGES, noise=True), "needs `draws`; got None"),
    "columns": (lambda: plots.reconstructions(IMAGES, IMAGES, 0), "`columns` .* got 0"),
    "lengths": (lambda: plots.training_curve([1, 2], [-1.0]), r"`train` .*\(2,\).*\(1,\)"),
    "diverged": (lambda: plots.training_curve([1], [float("nan")]), "`train` .* finite .*diverge"),
    "no rows": (lambda: plots.gap_figure([]), "`rows` .* got none"),
    "unknown family": (lambda: plots.gaps([row(own="Cauchy")]), "Normal.*Flow.*got 'Cauchy'"),
    "a mean": (lambda: plots.gaps([GapRow("test", -1.0, -2.0)]), "`log_evidence` .*each datum"),
    "column vectors": (
        lambda: plots.gaps([GapRow("test", torch.zeros(3, 1), torch.zeros(3, 1))]),
        r"`log_evidence` .*\(3, 1\)",
    ),
    "unpaired data": (
        lambda: plots.gaps([GapRow("test", [0.0, 0.0], [0.0, 0.0], {"Flow": [0.0]})]),
        r"`bounds\['Flow'\]` .*\(2,\).*\(1,\).*'test'",
    ),
    "one latent, no class": (
        lambda: plots.latent_space(CODES[:, :1], torch.rand(9)),
        "`labels` of at most ten classes.* got 9",
    ),
    "labels of others": (lambda: plots.latent_space(CODES, [1, 2]), "`labels` must be 9.*got 2"),
    "a prior of others": (lambda: plots.latent_space(CODES, None, ROWS[0, 0]), "`prior` .* 2 .*4"),
    "one code": (lambda: plots.latent_space(CODES[:1]), "`codes` must hold two .* got 1"),
    "too few names": (
        lambda: plots.latent_space(CODES, torch.arange(9), label_names=["a"]),
        "`label_names` must name the classes 0 to 8.* got 1",
    ),
    "grid of vectors": (
        lambda: plots.decoded_grid(torch.rand(2, 2, 5), [0, 1], [0, 1]),
        r"needs images.* \(2, 2, 5\).*traversals",
    ),
    "grid the wrong way": (
        lambda: plots.decoded_grid(ROWS, [0, 1], range(5)),
        r"`means` must be \(R, C, .*\(2, 5, 4, 4\)",
    ),
    "falling": (lambda: plots.decoded_grid(ROWS, range(5), [1, 0]), "`second` must rise"),
    "three ends": (
        lambda: plots.interpolations(ROWS, torch.rand(2, 3, 4, 4)),
        r"`originals` must be two.*\(2, 2, 4, 4\).*\(2, 3, 4, 4\)",
    ),
    "flattened images": (lambda: plots.interpolations(torch.rand(2, 5, 784)), "40 entries.*784"),
    "values of others": (lambda: plots.traversals(ROWS, [1, 2]), "`values` must be 5.*got 2"),
    "names of others": (lambda: plots.traversals(ROWS, range(5), ["z1"]), "`names` .* 2 .*got 1"),
    "no approximation": (lambda: posteriors(guides=""), "`log_guides` must be one to 4.* got 0"),
    "seven approximations": (
        lambda: posteriors(1, "abcdefg", plots.posterior_panels),
        "one to 6, by name; got 7",
    ),
    "grid of others": (
        lambda: plots.posteriors(range(3), range(4), ROWS[0], {"encoder": ROWS[0]}),
        r"`log_joint` must fit .*\(5, 4, 4\).*\(n, 4, 3\)",
    ),
    "draws of others": (lambda: plots.columns(CODES, ROWS[0, 0]), "`draws` .* 2 .* got 4"),
    "no model": (lambda: plots.path_changes({}), "one to four models; got 0"),
    "not a PNG": (lambda: plots.save(Figure(), "figure.pdf"), "'.png'; got 'figure.pdf'"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_error_names_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_save_makes_folders_and_leaves_only_the_png(tmp_path):
    path = plots.save(plots.gap_figure([row()]), tmp_path / "new" / "gaps.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_save_that_fails_leaves_the_old_file_whole_and_no_part_of_the_new(tmp_path, monkeypatch):
    path = tmp_path / "gaps.png"
    path.write_bytes(b"old")

    def fail(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
