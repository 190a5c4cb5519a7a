"""Pictures of single data: which gap stands where, what is counted, which data are the worst."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bayesvae import plots
from bayesvae.plots import GapRow


def row(n=40, split="test", own="Normal", seed=0):
    """Gaps that are the larger the less likely a datum is, one of the parts negative."""
    random = np.random.default_rng(seed)
    evidence = random.normal(-90, 10, n)
    best = evidence - random.gamma(2.0, 0.4, n)
    guide = best - random.gamma(2.0, 0.3, n) + 0.2
    return GapRow(split, evidence, guide, {"Normal": best, "Flow": evidence - 0.1}, own)


def stairs(axes):
    """What is drawn in steps: heights and their baselines, in the order of drawing."""
    return [(patch.get_data().values, patch.get_data().baseline) for patch in axes.patches]


def test_a_place_is_one_datum_with_its_parts_on_top_of_each_other():
    given = row()
    amortization, approximation, inference = stairs(plots.ordered_gaps([given]))
    order = np.argsort(given.log_evidence - given.guide)
    best = given.bounds["Normal"] - given.guide
    np.testing.assert_allclose(amortization[0], best[order])
    np.testing.assert_allclose(amortization[1], 0)
    np.testing.assert_allclose(approximation[1], best[order])
    np.testing.assert_allclose(approximation[0], (given.log_evidence - given.guide)[order])
    np.testing.assert_allclose(inference[0], np.sort(given.log_evidence - given.guide))


def test_a_guide_of_no_family_has_one_gap_in_order():
    axes = plots.ordered_gaps([row(own=None)])
    filled, outline = stairs(axes)
    np.testing.assert_allclose(filled[0], outline[0])
    assert axes.get_legend_handles_labels()[1] == ["inference gap"]


def test_each_split_stands_beside_the_other_under_its_share_above_one_nat():
    rows = [row(30, "train"), row(20, "unseen", seed=1)]
    axes = plots.ordered_gaps(rows)
    starts = []
    for given, text in zip(rows, axes.texts, strict=False):
        share = 100 * np.mean(given.log_evidence - given.guide > 1)
        assert (
            text.get_text() == f"{given.split} (n = {len(given.guide)})\n{share:.1f} % above 1 nat"
        )
        starts.append(text.get_position()[0])
    edges = [axes.patches[i].get_data().edges for i in (0, 3)]
    assert [edge[0] for edge in edges] == starts
    assert edges[0][-1] == 100 < edges[1][0]
    assert axes.texts[-1].get_text() == "1 nat"
    assert axes.texts[-1].get_position()[1] == 1.0


@pytest.mark.parametrize("draw", [plots.ordered_gaps, plots.gaps_against_evidence])
def test_a_gap_far_above_all_others_does_not_flatten_them_and_is_counted(draw):
    given = row(100, own=None)
    far = given._replace(guide=given.guide - 200 * (np.arange(100) == 3))
    axes = draw([far])
    assert axes.get_ylim()[1] < 20
    assert "data above the axis: 1, up to 20" in axes.get_xlabel()
    assert "above the axis" not in draw([given]).get_xlabel()


def test_a_mark_stands_at_the_evidence_and_the_gap_of_its_datum():
    given = row()
    marks = plots.gaps_against_evidence([given]).collections[0].get_offsets()
    expected = np.stack([given.log_evidence, given.log_evidence - given.guide], axis=-1)
    np.testing.assert_allclose(marks, expected)


def test_the_running_median_is_of_neighbours_in_log_evidence():
    evidence = np.arange(60.0)[::-1]
    gap = np.where(evidence < 30, 5.0, 1.0) + (evidence == 50)
    axes = plots.gaps_against_evidence([GapRow("test", evidence, evidence - gap)])
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_xdata(), np.arange(55) + 2.5)
    expected = np.where(line.get_xdata() < 29, 5.0, 1.0)
    away = np.abs(line.get_xdata() - 29.5) > 1
    np.testing.assert_allclose(line.get_ydata()[away], expected[away])


@pytest.mark.parametrize("n", [1, 19])
def test_few_data_get_no_running_median(n):
    axes = plots.gaps_against_evidence([row(n)])
    assert not len(axes.lines[0].get_xdata())


def correlations(evidence, gap):
    axes = plots.gaps_against_evidence([GapRow("a", evidence, evidence - gap)])
    return axes.get_legend_handles_labels()[1][0].split("correlation ")[1]


def test_the_correlation_is_of_ranks_with_ties_shared():
    evidence = np.array([1.0, 2.0, 2.0, 300.0, 5.0])
    gap = np.array([9.0, 8.0, 8.0, 0.1, 0.5])
    assert correlations(evidence, gap) == "−1.00 ± 0.00"
    assert correlations(evidence, np.ones(5)) == "none, for all are equal"
    assert correlations(np.arange(3.0), np.array([1.0, 2.0, 4.0])) == "1.00"
    # Without ties r = 1 - 6 sum d^2 / (n (n^2 - 1)), here 1 - 6 * 4 / 120.
    swapped = correlations(np.arange(5.0), np.array([2.0, 1.0, 4.0, 3.0, 5.0]))
    assert swapped == f"0.80 ± {(1 - 0.64) * (1.32 / 2) ** 0.5:.2f}"


def test_the_error_of_the_correlation_is_the_spread_over_data_sets():
    random, found, stated = np.random.default_rng(0), [], []
    for _ in range(300):
        x = random.normal(size=100)
        words = correlations(x, 0.5 * x + random.normal(size=100) + 5)
        r, error = words.split(" ± ")
        found.append(float(r))
        stated.append(float(error))
    # The standard deviation of 300 draws is off by 4 %.
    assert np.std(found) == pytest.approx(np.mean(stated), rel=0.2)


IMAGES = torch.rand(30, 1, 4, 6, generator=torch.Generator().manual_seed(0)).double()
GAPS = torch.arange(30.0)[torch.randperm(30, generator=torch.Generator().manual_seed(1))]
EVIDENCE = -100 - GAPS


@pytest.mark.parametrize(("count", "shown"), [(10, 10), (4, 4), (99, 30)])
def test_the_worst_come_first_each_beside_its_reconstructions(count, shown):
    axes = plots.worst_data(IMAGES, IMAGES**2, GAPS, EVIDENCE, IMAGES**3, count=count).axes[0]
    worst = GAPS.argsort(descending=True)[:shown]
    drawn = np.stack([image.get_array() for image in axes.images])
    expected = torch.stack([IMAGES[worst] ** power for power in (1, 2, 3)], 1).flatten(0, 2)
    np.testing.assert_allclose(drawn, expected)
    for place, text in zip(worst.tolist(), axes.texts, strict=True):
        gap = GAPS[place].item()
        assert text.get_text() == f"datum {place}\ngap {gap:.2f} nats\nlog p(x) −{100 + gap:.2f}"


def test_images_of_a_datum_are_in_one_row_under_their_names_and_beside_its_caption():
    axes = plots.worst_data(IMAGES, IMAGES, GAPS, EVIDENCE, count=7).axes[0]
    boxes = np.array([image.get_extent() for image in axes.images]).reshape(7, 2, 4)
    np.testing.assert_allclose(boxes[:, 0, 2:], boxes[:, 1, 2:])
    names = {label.get_text(): tick for tick, label in zip(
        axes.get_xticks()[:2], axes.get_xticklabels(), strict=False
    )}  # fmt: skip
    for name, box in zip(("datum", "guide"), boxes[0], strict=True):
        assert names[name] == pytest.approx(box[:2].mean())
    for row_of_boxes, text in zip(boxes, axes.texts, strict=True):
        assert text.get_position()[0] > row_of_boxes[:, 1].max()
        assert text.get_position()[1] == pytest.approx(row_of_boxes[0, 2:].mean())


def test_vectors_are_profiles_in_standard_deviations_over_all_data():
    scales = np.array([1.0, 100.0, 0.0])
    x = np.random.default_rng(0).normal(size=(30, 3)) * scales + [0, 5, 7]
    figure = plots.worst_data(x, x * 0.5, GAPS, EVIDENCE, names=["a", "b", "c"], count=2)
    worst = int(GAPS.argmax())
    spread = np.where(scales > 0, x.std(axis=0), 7)
    datum, guide = (line.get_ydata() for line in figure.axes[0].lines[:2])
    np.testing.assert_allclose(datum, (x[worst] - x.mean(axis=0)) / spread)
    np.testing.assert_allclose(guide, (x[worst] * 0.5 - x.mean(axis=0)) / spread)
    assert figure.axes[0].get_title("left").startswith(f"datum {worst},  gap 29.00 nats")
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["a", "b", "c"]


MISTAKES = {
    "no rows": (lambda: plots.ordered_gaps([]), "`rows` .* got none"),
    "five splits": (lambda: plots.gaps_against_evidence([row()] * 5), "up to 4; got 5"),
    "gaps of others": (
        lambda: plots.worst_data(IMAGES, IMAGES, GAPS[:3], EVIDENCE[:3]), "must be 30.* got 3"
    ),
    "means of others": (
        lambda: plots.worst_data(IMAGES, IMAGES[:3], GAPS, EVIDENCE), r"`means` must have "
    ),
    "none": (lambda: plots.worst_data(IMAGES, IMAGES, GAPS, EVIDENCE, count=0), "1; got 0"),
    "no number": (
        lambda: plots.worst_data(IMAGES, IMAGES, GAPS / 0, EVIDENCE), "`gaps` must be finite"
    ),
    "names": (
        lambda: plots.worst_data(IMAGES.flatten(1), IMAGES.flatten(1), GAPS, EVIDENCE, names="ab"),
        "`names` must be 24 names; got 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MISTAKES.values(), ids=MISTAKES)
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("draw", [plots.ordered_gaps, plots.gaps_against_evidence])
def test_given_axes_are_drawn_on_and_returned(draw):
    axes = Figure().subplots()
    assert draw([row()], axes) is axes
    assert "nats" in axes.get_ylabel()
