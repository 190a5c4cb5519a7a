"""The command line estimates log p(x) by any estimator, brackets it, calibrates the guide."""

import json
import math

import pytest
from commands import contents, copied, fit, table

from bayesvae.cli import main

PATH = ["--temperatures", "4", "--leapfrogs", "2", "--chains", "3"]


def evaluated(run, out, *words, limit=8):
    """The lines and the summary of an evaluation."""
    quick = ["--quiet", "--limit", str(limit), "--out", str(out)]
    assert main(["evaluate", str(run), *quick, *words]) == 0
    return table(out), json.loads(out.with_suffix(".json").read_text())


def mean(rows, name="log_evidence"):
    return sum(float(row[name]) for row in rows) / len(rows)


@pytest.mark.filterwarnings("ignore")
def test_every_proposal_estimates_the_same_evidence(run, tmp_path):
    """A guide of one epoch and three latents; all are lower bounds, and near each other."""
    found = {
        name: evaluated(run, tmp_path / f"{name}.csv", "--proposal", name, "--particles", "2000")
        for name in ("guide", "prior", "optimum", "mixture")
    }
    values = {name: mean(rows) for name, (rows, _) in found.items()}
    assert max(values.values()) - min(values.values()) < 0.2
    for name, (rows, summary) in found.items():
        assert summary["proposal"] == name
        assert summary["annealing"] is False
        above = sum(float(row["k_hat"]) > 0.7 for row in rows)
        assert summary["data_with_k_hat_above_it"] == above
    sizes = {name: mean(rows, "effective_sample_size") for name, (rows, _) in found.items()}
    assert sizes["optimum"] > sizes["prior"]


@pytest.mark.filterwarnings("ignore")
def test_annealing_estimates_the_same_evidence_as_the_best_proposal(run, tmp_path, capsys):
    path = ["--annealing", "--temperatures", "20", "--leapfrogs", "3"]
    rows, summary = evaluated(run, tmp_path / "annealed.csv", *path, "--proposal", "prior")
    assert "annealing, 20 temperatures of 3 leapfrogs, 8 chains" in capsys.readouterr().out
    assert (summary["temperatures"], summary["chains"]) == (20, 8)
    assert "k_hat" not in rows[0], "eight chains have no tail"
    best, _ = evaluated(run, tmp_path / "best.csv", "--proposal", "mixture")
    assert abs(mean(rows) - mean(best)) < 0.3


@pytest.mark.filterwarnings("default")
def test_a_k_hat_above_the_threshold_is_a_line_of_warning(tmp_path, capsys):
    """The prior in ten dimensions, with a hundred draws."""
    assert fit(tmp_path / "run", "--latent", "10", "--likelihood", "Normal") == 0
    capsys.readouterr()
    words = ["--proposal", "prior", "--particles", "200"]
    summary = evaluated(tmp_path / "run", tmp_path / "naive.csv", *words)[1]
    assert summary["data_with_k_hat_above_it"] > 0
    error = capsys.readouterr().err
    assert "bayesvae: k-hat is above 0.7 for" in error
    assert "the prior misses a part of the posterior" in error
    assert "with --annealing, or with --proposal mixture" in error


def test_a_summary_that_is_already_there_is_not_overwritten(run, tmp_path, capsys):
    (tmp_path / "mine.json").write_text("{}")
    words = ["evaluate", str(run), "--quiet", "--limit", "3", "--particles", "20"]
    words += ["--out", str(tmp_path / "mine.csv")]
    assert main(words) == 2
    assert "mine.json is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("command", ["bracket", "calibrate"])
def test_a_guide_with_rows_is_refused_data_of_the_models_own_in_words(command, tmp_path, capsys):
    assert fit(tmp_path, "--guide", "PerDatapoint") == 0
    assert main([command, str(tmp_path), "--quiet", "--data-count", "50"]) == 2
    error = capsys.readouterr().err
    assert "row for each" in error
    assert error.endswith("Train with --guide Amortized.\n")
    assert not (tmp_path / command).exists()


def test_a_bracket_writes_both_sides_of_every_datum_and_a_picture(run, tmp_path, capsys):
    words = [str(run), "--quiet", "--data-count", "12", *PATH, "--out", str(tmp_path / "b")]
    assert main(["bracket", *words]) == 0
    printed = capsys.readouterr().out
    assert "log p(x) of 12 data drawn from the model" in printed
    assert "4 temperatures of 2 leapfrogs, 3 chains a datum, from the guide" in printed
    names = {"bracket.csv", "bracket.json", "bracket.png"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == names
    rows, summary = (
        table(tmp_path / "b" / "bracket.csv"),
        json.loads((tmp_path / "b" / "bracket.json").read_text()),
    )
    assert len(rows) == summary["data_count"] == 12
    for row in rows:
        width = float(row["upper"]) - float(row["lower"])
        assert float(row["width"]) == pytest.approx(width, abs=1e-9)
        assert float(row["lower_stderr"]) > 0
        assert float(row["upper_stderr"]) > 0
    assert summary["width"] == pytest.approx(mean(rows, "width"))
    assert summary["width_stderr"] > 0
    assert summary["temperatures"] == 4
    before = contents(tmp_path)
    assert main(["bracket", *words]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main(["bracket", *words, "--overwrite", "--data-count", "1"]) == 0
    alone = json.loads((tmp_path / "b" / "bracket.json").read_text())
    assert alone["width_stderr"] is None, "JSON has no NaN"


def test_a_seed_repeats_a_bracket_and_another_one_draws_other_data(run, tmp_path):
    lower = []
    for number, seed in enumerate(("3", "3", "4")):
        out = tmp_path / str(number)
        words = ["--quiet", "--data-count", "3", *PATH, "--seed", seed, "--out", str(out)]
        assert main(["bracket", str(run), *words]) == 0
        lower.append([row["lower"] for row in table(out / "bracket.csv")])
    assert lower[0] == lower[1] != lower[2]


def test_a_calibration_writes_ranks_verdicts_and_a_picture(run, tmp_path, capsys):
    folder = copied(run, tmp_path / "run")
    words = [str(folder), "--quiet", "--data-count", "60", "--draws", "99"]
    assert main(["calibrate", *words]) == 0
    printed = capsys.readouterr().out
    assert "60 data drawn from the model, 99 draws of the guide each" in printed
    made = folder / "calibration"
    assert (made / "calibration.txt").read_text() in printed
    assert (made / "calibration.png").stat().st_size > 0
    rows = table(made / "ranks.csv")
    assert len(rows) == 60
    assert all(0 <= int(row["rank_z[0]"]) <= 99 for row in rows)
    summary = json.loads((made / "calibration.json").read_text())
    assert list(summary["verdicts"]) == ["z[0]", "z[1]", "z[2]", "log p(x, z)", "log q(z | x)"]
    assert all(verdict in printed for verdict in summary["verdicts"].values())
    assert summary["p_value"] == min(summary["p_values"].values())
    assert all(len(inside) == len(summary["levels"]) for inside in summary["coverage"].values())
    assert math.isfinite(summary["share_with_k_hat_above_threshold"])
    assert main(["calibrate", *words]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_run_that_is_replaced_takes_its_bracket_and_calibration_along(tmp_path):
    assert fit(tmp_path) == 0
    assert main(["bracket", str(tmp_path), "--quiet", "--data-count", "2", *PATH]) == 0
    (tmp_path / "calibration").mkdir()
    assert fit(tmp_path, "--overwrite") == 0
    assert not (tmp_path / "bracket").exists()
    assert not (tmp_path / "calibration").exists()


def test_a_guide_with_rows_serves_no_data_that_the_model_makes(tmp_path, capsys):
    assert fit(tmp_path / "run", "--guide", "PerDatapoint") == 0
    capsys.readouterr()
    for words in (["bracket", "--data-count", "3"], ["calibrate", "--data-count", "50"]):
        assert main([words[0], str(tmp_path / "run"), "--quiet", *words[1:]]) == 2
        assert "a row for each" in capsys.readouterr().err
