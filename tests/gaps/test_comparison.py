"""The report says what was measured, under the right name."""

import csv
from functools import partial

import pytest
import torch
from comparing import SHORT, quiet, shifted_comparison
from linear_gaussian import drawn, rotated, shifted
from matplotlib.figure import Figure

from bayesvae import families, guides, networks
from bayesvae.pairs import ppca


def number(table, split, *words):
    """The mean in the one line of a split that has all the words."""
    lines = [line for line in table.splitlines() if line.split()[:1] == [split]]
    (line,) = [line for line in lines if all(word in line for word in words)]
    return float(line[: line.index(" +- ")].split()[-1])


def test_the_table_shows_each_gap_under_its_own_name_with_its_value():
    _, _, result = shifted_comparison()
    table = str(result)
    for name, split in result.splits.items():
        shown = partial(number, table, name)
        close = partial(pytest.approx, abs=1e-3)
        assert shown("log p(x)", "sampling") == close(split.log_evidence.value.mean().item())
        assert shown("L[q*] Normal") == close(split.bounds["Normal"].value.mean().item())
        assert shown("L[q_phi] guide", "own guide") == close(split.guide.value.mean().item())
        own = shown("amortization gap", "Normal")
        assert own == close(split.amortization_gap.mean().item())
        wide = shown("improvement over the guide", "MultivariateNormal")
        assert wide == close(split.improvement("MultivariateNormal").mean().item())
        assert shown("log p(x) - L[q_phi]") == close(split.inference_gap.mean().item())
    assert table.count("amortization gap") == table.count("improvement over the guide") == 2
    assert table.count("approximation gap") == 4


def test_no_gap_is_called_amortization_where_the_guides_own_family_is_not_among_the_bounds():
    model = rotated()
    wider = quiet(shifted(model), drawn(model, 6), families=(families.MultivariateNormal,))
    narrower = quiet(ppca(model), drawn(model, 6), families=(families.Normal,), ascent=SHORT)
    for result in (wider, narrower):
        assert result.splits["train"].own is None
        assert "amortization" not in str(result)
        assert str(result).count("improvement over the guide") == 1
    assert wider.splits["train"].improvement("MultivariateNormal").mean() > 0


def test_errors_in_the_table_are_those_of_paired_differences():
    _, _, result = shifted_comparison()
    split = result.splits["train"]
    error = split.amortization_gap.std().item() / len(split.amortization_gap) ** 0.5
    (line,) = [
        line for line in str(result).splitlines() if "amortization" in line and "train" in line
    ]
    shown, share = line.split("+- ")[1].split(maxsplit=1)
    assert float(shown) == pytest.approx(error, abs=1e-3)
    above = 100 * (split.amortization_gap > 1).double().mean().item()
    assert float(share.removesuffix(" %")) == pytest.approx(above, abs=0.05)
    assert error < 0.2 * split.guide.mean()[1]


def test_csv_has_one_line_a_datum_and_one_column_a_bound(tmp_path):
    _, data, result = shifted_comparison()
    result.to_csv(tmp_path / "new" / "gaps.csv")
    rows = list(csv.DictReader((tmp_path / "new" / "gaps.csv").read_text().splitlines()))
    families = ["optimum_Normal", "optimum_MultivariateNormal"]
    estimates = ["log_evidence", "guide_elbo", *families]
    columns = ["split", "position", "effective_sample_size", "k_hat", *estimates]
    assert set(rows[0]) == {*columns, *(f"{name}_stderr" for name in estimates)}
    places = [(name, str(i)) for name, x in data.items() for i in range(len(x))]
    assert [(row["split"], row["position"]) for row in rows] == places
    for name, split in result.splits.items():
        own = [row for row in rows if row["split"] == name]
        held = {
            "log_evidence": split.log_evidence,
            "guide_elbo": split.guide,
            "optimum_Normal": split.bounds["Normal"],
            "optimum_MultivariateNormal": split.bounds["MultivariateNormal"],
        }
        for column, estimate in held.items():
            assert [float(row[column]) for row in own] == pytest.approx(
                estimate.value.tolist(), rel=1e-5
            )
            assert [float(row[f"{column}_stderr"]) for row in own] == pytest.approx(
                estimate.stderr.tolist(), rel=1e-5
            )


def test_figure_is_drawn_with_and_without_optima():
    _, _, result = shifted_comparison()
    assert isinstance(result.figure(), Figure)
    model = rotated()
    bare = quiet(ppca(model), drawn(model, 6), families=())
    assert isinstance(bare.figure(), Figure)


def test_prices_count_what_each_route_stores_and_take_some_time():
    family = families.Normal(2)
    network = networks.MLP(5, (7,), family.size)
    result = quiet(
        ppca(rotated(), guides.Amortized(network, family)), torch.randn(6, 5), ascent=SHORT
    )
    stored = {price.route: price.parameters for price in result.prices}
    encoder = sum(parameter.numel() for parameter in network.parameters())
    assert stored == {"guide": encoder, "Normal": 4000, "MultivariateNormal": 5000}
    assert all(price.seconds > 0 for price in result.prices)
