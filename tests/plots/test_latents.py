"""What the pictures of latents say: the masses of regions, divergences, and what stands where."""

import numpy as np
import pytest
import torch
from matplotlib.contour import ContourSet
from matplotlib.path import Path
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, kl_divergence

from bayesvae import plots
from bayesvae.plots import density

SPREAD = np.array([[1.0, 0.6], [0.6, 2.0]])
FIRST, SECOND = torch.linspace(-6, 6, 141).double(), torch.linspace(-6, 5, 111).double()
POSTERIOR = MultivariateNormal(
    torch.tensor([0.5, -1.0]).double(), torch.tensor([[1.0, 0.4], [0.4, 0.5]]).double()
)
GUIDE = MultivariateNormal(torch.tensor([0.0, -0.5]).double(), 0.6 * torch.eye(2).double())


def normal(n, seed=0):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(2), SPREAD, n)


def regions(axes):
    """The contour sets of axes: shades first, then lines."""
    return [child for child in axes.get_children() if isinstance(child, ContourSet)]


def inside(contours, level, points):
    """The share of points within a contour, by its polygons."""
    paths = contours.get_paths()[level].to_polygons()
    return np.mean(np.any([Path(path).contains_points(points) for path in paths], axis=0))


def posterior_figure(
    log_guides, n=1, first=FIRST, second=SECOND, draw=plots.posteriors, **options
):
    plane = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    log_joint = (POSTERIOR.log_prob(plane) - 80.0).repeat(n, 1, 1)
    guides = {name: q.log_prob(plane).repeat(n, 1, 1) for name, q in log_guides.items()}
    return draw(first, second, log_joint, guides, **options)


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("n", [1_000, 10_000])
def test_regions_of_draws_hold_the_mass_that_the_legend_says(n):
    draws, others = normal(n), normal(100_000, seed=2)
    (lines,) = regions(plots.latent_space(draws))
    for level, mass in enumerate((0.9, 0.5)):
        assert abs(inside(lines, level, draws) - mass) < 0.01
        assert abs(inside(lines, level, others) - mass) < 0.04


def test_a_tight_cluster_beside_a_wide_one_is_not_blurred_as_much_as_that():
    points = np.concatenate([normal(500) * 0.2, normal(500, seed=1) * 1.5 + [9, 0]])
    (lines,) = regions(plots.latent_space(points))
    assert inside(lines, 0, np.array([[0.0, 0.0]])) == 1
    assert inside(lines, 0, np.array([[2.0, 0.0]])) == 0


def test_levels_hold_their_mass_on_a_grid_of_uneven_cells():
    line = np.sinh(np.linspace(-2.2, 2.2, 301))
    area = np.outer(np.gradient(line), np.gradient(line))
    p = np.exp(-0.5 * (line[:, None] ** 2 + line**2)) / (2 * np.pi)
    expected = [(1 - mass) / (2 * np.pi) for mass in density.MASSES]
    np.testing.assert_allclose(density.levels(p, p * area), expected, rtol=0.01)


def test_a_level_that_the_grid_does_not_reach_is_left_out():
    p = np.linspace(1, 2, 100)
    (level,) = density.levels(p, np.full(100, 0.006))
    assert np.mean(p > level) == pytest.approx(0.5 / 0.6, abs=0.01)


def test_more_latents_are_seen_along_the_principal_axes_of_the_codes():
    codes = np.random.default_rng(0).normal(size=(400, 5)) * [1, 3, 0.5, 2, 1]
    pca = PCA(2).fit(codes)
    axes = plots.latent_space(codes)
    drawn = axes.collections[0].get_offsets()
    expected = pca.transform(codes)[np.random.default_rng(0).permutation(400)]
    np.testing.assert_allclose(np.abs(drawn), np.abs(expected), atol=1e-9)
    shares = [f"({100 * share:.0f} % of" for share in pca.explained_variance_ratio_]
    assert shares[0] in axes.get_xlabel()
    assert shares[1] in axes.get_ylabel()


@pytest.mark.parametrize("dim", [2, 4])
def test_a_prior_like_the_codes_is_shaded_up_to_their_lines(dim):
    codes = np.random.default_rng(0).normal(size=(2_000, dim)) * [1, 3, 1, 2][:dim] + 7
    shades, lines = regions(plots.latent_space(codes, prior=codes))
    np.testing.assert_allclose(shades.levels[:2], lines.levels)
    extents = [np.ptp(c.get_paths()[0].vertices, axis=0) for c in (shades, lines)]
    np.testing.assert_allclose(*extents, rtol=0.01)


def test_classes_are_named_at_their_medians_in_their_colours():
    labels = np.repeat([0, 1, 2], 30)
    codes = normal(90) + 8 * np.stack([labels, labels], axis=1)
    axes = plots.latent_space(codes, labels, label_names=["cat", "dog", "bird"])
    assert texts(axes) == ["cat", "dog", "bird"]
    dots = axes.collections[0]
    for value, text in enumerate(axes.texts):
        np.testing.assert_allclose(text.get_position(), np.median(codes[labels == value], axis=0))
        nearest = np.argmin(np.abs(dots.get_offsets() - codes[labels == value][0]).sum(axis=1))
        np.testing.assert_allclose(
            dots.get_facecolors()[nearest][:3], text.get_bbox_patch().get_facecolor()[:3]
        )


def test_names_of_classes_in_one_place_do_not_cover_each_other():
    axes = plots.latent_space(normal(1_000), np.arange(1_000) % 10)
    heights = np.sort([text.get_position()[1] for text in axes.texts])
    assert len(heights) == 10
    assert np.diff(heights).min() > 0.04 * np.ptp(axes.get_ylim())


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 60), np.arange(60)])
def test_labels_that_are_no_classes_get_a_colour_bar(labels):
    axes = plots.latent_space(normal(60), labels)
    assert not texts(axes)
    assert len(axes.figure.axes) == 2


def test_codes_that_the_axes_do_not_show_are_counted():
    codes = np.concatenate([normal(2_000), [[90.0, 0.0], [0.0, 90.0]]])
    axes = plots.latent_space(codes)
    limits = np.array([axes.get_xlim(), axes.get_ylim()]).T
    beyond = ((codes < limits[0]) | (codes > limits[1])).any(axis=1).sum()
    title = axes.get_legend().get_title().get_text()
    assert 2 <= beyond < 10
    assert title == f"codes beyond the axes: {beyond}"


def test_one_latent_is_a_histogram_of_area_one_with_classes_stacked():
    codes = normal(300)[:, :1]
    axes = plots.latent_space(codes, np.arange(300) % 2, codes * 2)
    bars = [bar for part in axes.containers for bar in part]
    np.testing.assert_allclose(sum(bar.get_width() * bar.get_height() for bar in bars), 1.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "prior p(z)"]


def test_the_divergence_is_the_closed_form():
    figure = posterior_figure({"encoder": GUIDE, "Normal q*": POSTERIOR})
    expected = kl_divergence(GUIDE, POSTERIOR)
    assert texts(figure.axes[0]) == [f"{expected:.2f}", "0.00"]
    assert expected > 0.1


def test_a_guides_contours_hold_their_mass():
    figure = posterior_figure({"encoder": GUIDE})
    lines = regions(figure.axes[0])[1]
    draws = GUIDE.sample((50_000,)).numpy()
    for level, mass in enumerate((0.9, 0.5)):
        assert abs(inside(lines, level, draws) - mass) < 0.02


def test_what_the_grid_does_not_hold_is_said_below_the_panel():
    right = torch.linspace(0, 6, 81)
    words = posterior_figure({"encoder": GUIDE}, first=right).axes[0].get_xlabel()
    held = GUIDE.sample((100_000,))[:, 0].gt(0).double().mean()
    share = int(words.split("grid holds ")[1].split(" % of encoder")[0])
    assert abs(share - 100 * held) < 4
    assert "cuts p(z | x) off" in words
    assert posterior_figure({"encoder": GUIDE}).axes[0].get_xlabel() == "z1"


def test_a_grid_that_cuts_the_posterior_off_gives_no_divergence():
    cut = posterior_figure({"encoder": POSTERIOR}, first=torch.linspace(0, 6, 81))
    assert texts(cut.axes[0]) == ["?"]
    assert "or ? where" in cut.legends[0].get_title().get_text()


def test_a_grid_too_coarse_for_a_narrow_guide_is_said_instead_of_its_divergence():
    narrow = MultivariateNormal(torch.zeros(2), 1e-4 * torch.eye(2))
    axes = posterior_figure({"encoder": narrow, "wide": POSTERIOR}).axes[0]
    assert "too coarse for encoder" in axes.get_xlabel()
    assert texts(axes) == ["?", "0.00"]


def test_the_guide_and_its_familys_optimum_have_the_colours_of_their_gaps():
    figure = posterior_figure({"encoder": GUIDE, "Normal q*": POSTERIOR}, n=4)
    assert len(figure.axes) == 4
    assert [text.get_color() for text in figure.axes[3].texts] == ["#D55E00", "#0072B2"]
    lines = [line.get_color() for line in figure.legends[0].get_lines()]
    assert lines == ["#D55E00", "#0072B2"]


class TwoNormals:
    """Far from any normal: two of them, far apart."""

    parts = (
        MultivariateNormal(torch.tensor([-2.0, -1.0]).double(), 0.1 * torch.eye(2).double()),
        MultivariateNormal(torch.tensor([2.0, -1.0]).double(), 0.1 * torch.eye(2).double()),
    )

    def log_prob(self, z):
        return torch.stack([part.log_prob(z) for part in self.parts]).logsumexp(0) - np.log(2)


def test_each_datum_and_q_has_a_panel_with_its_own_contours_and_divergence():
    guides = {"encoder": GUIDE, "MultivariateNormal q*": POSTERIOR, "mixture": TwoNormals()}
    figure = posterior_figure(guides, n=2, draw=plots.posterior_panels, titles=["seven", "nine"])
    assert len(figure.axes) == 6
    z = torch.cat([part.sample((20_000,)) for part in TwoNormals.parts])
    mixture = (TwoNormals().log_prob(z) - POSTERIOR.log_prob(z)).mean()
    expected = [kl_divergence(GUIDE, POSTERIOR), 0.0, mixture]
    for axes, value in zip(figure.axes, expected * 2, strict=True):
        assert float(texts(axes)[0]) == pytest.approx(float(value), abs=0.06)
    _, lines = regions(figure.axes[2])
    for part in TwoNormals.parts:
        assert abs(inside(lines, 0, part.sample((4_000,)).numpy()) - 0.9) < 0.02
    titles = [" ".join(axes.get_title().split()) for axes in figure.axes]
    assert titles == [*guides, *[""] * 3]
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes[::3]] == ["seven", "nine"]


def test_panels_of_a_datum_show_the_same_part_of_the_plane():
    guides = {"encoder": GUIDE, "mixture": TwoNormals()}
    left, right = posterior_figure(guides, draw=plots.posterior_panels).axes
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    low, high = left.get_xlim()
    assert low < -2.5
    assert high > 2.5


def test_a_flaw_stands_under_its_own_panel():
    far = MultivariateNormal(torch.tensor([5.5, 0.0]).double(), torch.eye(2).double())
    figure = posterior_figure({"encoder": GUIDE, "far": far}, draw=plots.posterior_panels)
    left, right = figure.axes
    assert left.get_xlabel() == ""
    assert "of far" in right.get_xlabel()
    assert texts(right) == ["?"]
    assert "?" in figure.legends[0].get_title().get_text()


def test_a_panel_is_around_the_mass_and_not_the_whole_grid():
    axes = posterior_figure({"encoder": POSTERIOR}, titles=["seven"]).axes[0]
    assert axes.get_title("left") == "seven"
    for limits, middle in ((axes.get_xlim(), 0.5), (axes.get_ylim(), -1.0)):
        assert abs(np.mean(limits) - middle) < 0.2
        assert 4 < np.ptp(limits) < 8


def test_the_second_latent_rises_upwards_in_the_mosaic():
    means = torch.arange(6.0).reshape(2, 3, 1, 1).expand(2, 3, 4, 5) / 5
    axes = plots.decoded_grid(means, [-1, 0, 1], [10, 20]).axes[0]
    mosaic = np.asarray(axes.images[0].get_array())
    assert mosaic.shape == (8, 15)
    np.testing.assert_allclose(mosaic[::4, ::5], [[0.6, 0.8, 1.0], [0.0, 0.2, 0.4]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10", "20"]
    assert not axes.yaxis_inverted()


def test_a_path_stands_between_its_two_data_and_apart_from_them():
    means, originals = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 4, 4)
    axes = plots.interpolations(means, originals).axes[0]
    lefts = np.array([image.get_extent()[0] for image in axes.images[:5]])
    shown = np.stack([np.asarray(image.get_array()) for image in axes.images])
    first = shown[:5][np.argsort(lefts)]
    np.testing.assert_array_equal(first, torch.cat([originals[0, :1], means[0], originals[0, 1:]]))
    steps = np.diff(np.sort(lefts))
    assert steps[[0, -1]].min() > 1.2
    np.testing.assert_allclose(steps[1:-1], 1.0)
    heads = [label.get_text() for label in axes.get_xticklabels()]
    assert sorted(heads) == ["0", "0.5", "1", "datum", "datum"]


def test_traversals_have_values_above_and_latents_at_the_left():
    axes = plots.traversals(torch.rand(2, 3, 4, 4), [-2, 0, 2], ["z3, KL 2.1 nats", "z1"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−2", "0", "2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z3, KL 2.1 nats", "z1"]
    bottoms = [image.get_extent()[2] for image in axes.images]
    assert bottoms[:3] == [bottoms[0]] * 3
    assert bottoms[3] > bottoms[0]
    assert axes.yaxis_inverted()


def test_a_grey_scale_is_that_of_means_and_data_together():
    axes = plots.interpolations(torch.rand(1, 3, 4, 4) - 0.5, 9 * torch.rand(1, 2, 4, 4)).axes[0]
    low, high = axes.images[0].get_clim()
    assert low < 0
    assert high > 5
    assert f"{high:.2g} (white)" in texts(axes)[0]


def test_a_vectors_entry_has_one_scale_in_all_rows_and_rises_upwards():
    means = torch.tensor([[[0.0], [1.0]], [[1.0], [4.0]]])
    axes = plots.traversals(means, [0, 1], dimensions=["income"]).axes[0]
    heights = np.stack([line.get_ydata() for line in axes.lines]) - [[0], [1]]
    scaled = (heights - heights[0, 0]) / (heights[1, 1] - heights[0, 0])
    np.testing.assert_allclose(scaled, means[..., 0] / 4)
    assert heights[0, 0] > heights[1, 1]
    assert axes.yaxis_inverted()
    assert texts(axes) == ["0 …\n4"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["income"]


def test_histograms_of_data_and_draws_are_shares_of_each():
    data, draws = np.random.default_rng(0).normal(size=(2, 400, 3))
    axes = plots.columns(data, draws[:100]).axes[1]
    bars = sum(bar.get_height() for bar in axes.containers[0])
    np.testing.assert_allclose(bars, 1.0)
    outline = axes.patches[-1].get_xy()
    edges, tops = outline[1:-1:2, 0], outline[1:-1:2, 1]
    counts = np.histogram(draws[:100, 1], np.unique(outline[:, 0]))[0] / 100
    np.testing.assert_allclose(tops[: len(counts)], counts, atol=1e-12)
    assert len(edges) == len(tops)


def test_draws_beyond_the_data_are_counted_not_dropped():
    data = np.random.default_rng(0).normal(size=(200, 1))
    draws = np.concatenate([data, data + 100])
    assert plots.columns(data, draws).axes[0].get_title() == "beyond: 50 % of draws"


def test_whole_numbers_have_a_bin_each():
    data = np.random.default_rng(0).integers(3, 9, (500, 1))
    bars = plots.columns(data, data + 0.3).axes[0].containers[0]
    counts = {bar.get_x() + 0.5: bar.get_height() for bar in bars if bar.get_height()}
    assert counts == pytest.approx({value: np.mean(data == value) for value in range(3, 9)})


def test_columns_left_out_are_said():
    figure = plots.columns(torch.randn(20, 30), torch.randn(20, 30))
    assert len(figure.axes) == 12
    assert figure.legends[0].get_title().get_text() == "the first 12 of 30 columns"


def test_two_columns_are_planes_side_by_side_with_equally_many_points():
    data, draws = torch.randn(50, 2), torch.randn(90, 2)
    left, right = plots.columns(data, draws, ["east", "north"]).axes
    np.testing.assert_array_equal(left.collections[0].get_offsets(), data)
    np.testing.assert_array_equal(right.collections[0].get_offsets(), draws[:50])
    assert (left.get_xlabel(), left.get_ylabel()) == ("east", "north")
    assert left.get_xlim() == right.get_xlim()


def test_a_paths_median_stands_in_the_middle_of_each_step():
    changes = torch.arange(12.0).reshape(3, 4)
    axes = plots.path_changes({"VAE": changes})
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), changes[1])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.8, 10.2])
