"""The figures of a comparison: what the pair, run again, adds to them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparing import SHIFT, SHORT, quiet, shifted_comparison
from linear_gaussian import covariance, drawn, kl_to_posterior, rotated, shifted
from matplotlib.figure import Figure
from torch.testing import assert_close

from bayesvae import Pair, families
from bayesvae.gaps import pictures
from bayesvae.optima import Semi
from bayesvae.pairs import ppca

ALWAYS = ["gaps", "ordered_gaps", "gaps_against_evidence"]


def compared(pair, x, *kinds, **options):
    split = quiet(pair, x, families=kinds, ascent=SHORT, compile=False, **options).splits["train"]
    return pair, split


def test_without_the_pair_there_are_the_figures_of_gaps_alone():
    model, _, result = shifted_comparison()
    assert list(result.figures()) == ALWAYS
    with_pair = result.figures(shifted(model, SHIFT))
    assert list(with_pair) == [
        *ALWAYS, "worst_data_train", "posteriors_train", "worst_data_unseen", "posteriors_unseen"
    ]  # fmt: skip
    assert {type(figure) for figure in with_pair.values()} == {Figure}


def test_the_figures_of_gaps_are_of_every_split_and_its_own_family():
    _, _, result = shifted_comparison()
    texts = [text.get_text() for text in result.figures()["ordered_gaps"].axes[0].texts]
    for text, (name, split) in zip(texts, result.splits.items(), strict=False):
        share = 100 * (split.inference_gap > 1).double().mean()
        assert text == f"{name} (n = {len(split.inference_gap)})\n{share:.1f} % above 1 nat"


def test_the_worst_data_are_reconstructed_from_the_guides_code_and_from_that_of_its_own_optimum():
    """Catches rows of other data, another family, and coordinates not carried back."""
    model, data, result = shifted_comparison()
    split = result.splits["unseen"]
    figure = pictures.worst_data(shifted(model, SHIFT), split, names="abcde")
    x = data["unseen"]
    worst = split.inference_gap.argsort(descending=True)[:10]
    assert [int(axes.get_title("left").split(",")[0].split()[1]) for axes in figure.axes] == (
        worst.tolist()
    )
    loc, scale = x.mean(0), x.std(0, correction=0)
    best = model.posterior(x).mean
    for code, line, error in ((best + SHIFT, 1, 1e-9), (best, 2, 0.15)):
        expected = (code @ model.weight.T + model.loc - loc) / scale
        found = torch.tensor(figure.axes[0].lines[line].get_ydata())
        assert_close(found, expected[worst[0]].detach(), rtol=0, atol=error)
    shift = (SHIFT @ model.weight.T / scale).abs().max()
    assert shift > 0.3, "the two codes must differ by more than the tolerance"


def test_numbers_over_the_panels_are_the_divergences_of_each_q_from_the_exact_posterior():
    model = rotated()
    x = drawn(model, 12)
    kinds = (families.Normal, families.MultivariateNormal, families.Flow)
    pair, split = compared(shifted(model, SHIFT), x, *kinds, semi=Semi((1, 5)))
    figure = pictures.posterior_panels(pair, split)
    names = ["Normal", "MultivariateNormal", "Flow"]
    titles = [" ".join(axes.get_title().split()) for axes in figure.axes[:5]]
    assert titles == ["guide", *(f"{name} q*" for name in names), "semi-amortized, 5 steps"]
    order = split.inference_gap.argsort(descending=True)
    for row, datum in zip((0, 3), (order[0], order[-1]), strict=True):
        panels = figure.axes[5 * row : 5 * row + 5]
        assert panels[0].get_ylabel().startswith(f"datum {datum}, gap")
        shown = [float(axes.texts[0].get_text()) for axes in panels]
        for i, name in ((0, "guide"), (1, "Normal"), (2, "MultivariateNormal")):
            q = moved(split, name, datum)
            exact = kl_to_posterior(model, q, x[datum : datum + 1]).item()
            assert shown[i] == pytest.approx(exact, abs=0.006)


def moved(split, name, datum):
    """A normal q of one datum, in the latents' own coordinates."""
    kept, one = split.posteriors, slice(datum, datum + 1)
    family, rows = kept.members[name]
    q, scale = family(rows[one]), kept.scale[one]
    tril = torch.linalg.cholesky(covariance(q))
    return dist.MultivariateNormal(
        kept.loc[one] + scale * q.mean, scale_tril=scale.unsqueeze(-1) * tril
    )


def one_latent(support):
    """A pair of one latent of two entries, real or above zero."""

    def model(x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(0.0, 1.0) if support == "real" else dist.Gamma(2.0, 1.0)
            z = pyro.sample("z", prior.expand([len(x), 2]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            q = dist.Normal(x / 2, 0.7) if support == "real" else dist.LogNormal(0.1 * x, 0.5)
            pyro.sample("z", q.to_event(1))

    return Pair(model, guide)


@pytest.mark.parametrize(("support", "drawn"), [("real", True), ("positive", False)])
def test_posteriors_are_drawn_of_latents_that_are_the_plane_itself(support, drawn):
    x = torch.rand(6, 2) + 0.5
    pair, split = compared(one_latent(support), x, families.Normal)
    assert (pictures.posterior_panels(pair, split) is not None) == drawn
    assert pictures.worst_data(pair, split) is not None, "means are to be had of either"


def test_codes_of_constrained_latents_are_inside_their_support():
    x = torch.rand(6, 2) + 0.5
    pair, split = compared(one_latent("positive"), x, families.Normal)
    line = pictures.worst_data(pair, split).axes[0].lines[2].get_ydata()
    kept, worst = split.posteriors, split.inference_gap.argmax()
    family, rows = kept.members["Normal"]
    code = (kept.loc + kept.scale * family(rows).mean).exp()[worst]
    assert_close(torch.tensor(line), (code - x.mean(0)) / x.std(0, correction=0))


def test_of_a_pair_without_families_or_a_drawable_datum_nothing_more_is_drawn():
    model = rotated()
    pair, split = compared(ppca(model), drawn(model, 6))
    assert split.posteriors is None
    assert pictures.worst_data(pair, split) is pictures.posterior_panels(pair, split) is None


def test_where_the_likelihood_has_no_known_mean_the_worst_data_are_left_out():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Cauchy(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    pair = Pair(model, guide)
    x = torch.randn(6, 2)
    result = quiet(pair, x, families=(families.Normal,), ascent=SHORT, compile=False)
    assert list(result.figures(pair)) == [*ALWAYS, "posteriors_train"]
