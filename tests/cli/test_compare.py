"""``bayesvae compare``: its options reach the report, and everything lands in the run folder."""

import json
import math
import shutil

import pytest
from commands import QUICK, copied, fit, table

from bayesvae.cli import main, runs

OPTIONS = ["--families", "Normal", "LowRankNormal", "--semi-steps", "1", "3", "--compile", "never"]
ANNEALING = ["--annealing", "--temperatures", "5", "--leapfrogs", "2", "--chains", "3"]


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    """The folder of a small run after a comparison with every option."""
    folder = copied(run, tmp_path_factory.mktemp("compared"))
    assert main(["compare", str(folder), *QUICK, *OPTIONS, *ANNEALING]) == 0
    return folder


def test_every_option_is_seen_in_the_table_and_the_csv(compared):
    text = (compared / "gaps.txt").read_text()
    for words in (
        "L[q*] LowRankNormal",
        "left by 3 steps",
        "semi-amortized, 1 step ",
        "annealing, a lower bound; all gaps are from it",
        "unseen data on the guide is cheaper than Normal",
    ):
        assert words in text, words
    rows = table(compared / "gaps.csv")
    assert {row["split"] for row in rows} == {"train", "unseen"}
    for name in ("semi_1", "semi_3", "optimum_LowRankNormal", "importance", "reverse"):
        assert all(math.isfinite(float(row[name])) for row in rows), name
    assert "optimum_MultivariateNormal" not in rows[0]


def test_the_summary_has_prices_and_every_bound_and_what_fit_wrote(compared, run):
    summary, before = (json.loads((f / "summary.json").read_text()) for f in (compared, run))
    assert summary.items() >= before.items()
    held = summary["comparison"]
    assert held["guide_cheaper_than"] == "Normal"
    seconds = held["seconds_per_1000_data"]
    saved = (seconds["Normal"] - seconds["guide"]) / 1000
    # The training that is charged to the guide is that of the run.
    assert held["guide_cheaper_from_data"] == math.ceil(before["seconds"] / saved)
    means = [
        float(row["semi_3"]) for row in table(compared / "gaps.csv") if row["split"] == "train"
    ]
    assert held["train"]["semi_3"] == pytest.approx(sum(means) / len(means), rel=1e-4)


def test_a_second_comparison_has_to_be_asked_for(compared, capsys):
    held = (compared / "gaps.csv").read_bytes()
    assert main(["compare", str(compared), *QUICK]) == 2
    said = capsys.readouterr().err
    assert "gaps.csv is there already. Add --overwrite." in said
    assert "--out" not in said, "there is no such option"
    assert (compared / "gaps.csv").read_bytes() == held


def test_a_second_comparison_leaves_nothing_of_the_first(compared, tmp_path):
    shutil.copytree(compared, tmp_path / "again")
    words = ["--families", "Normal", "--overwrite", "--compile", "never"]
    assert main(["compare", str(tmp_path / "again"), *QUICK, *words]) == 0
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert "semi_3" not in summary["comparison"]["train"]
    assert "annealing" not in (tmp_path / "again" / "gaps.txt").read_text()


def test_a_guide_with_rows_is_never_said_to_be_cheaper(tmp_path):
    assert fit(tmp_path / "run", "--guide", "PerDatapoint") == 0
    words = ["--families", "Normal", "--compile", "never"]
    assert main(["compare", str(tmp_path / "run"), *QUICK, *words]) == 0
    assert "cheaper" not in (tmp_path / "run" / "gaps.txt").read_text()


WRONG = {
    "--families Norml": "got Norml. Did you mean Normal?",
    "--families": "--families needs at least one value; got none",
    "--families nothing.Here": "--families needs a module that can be imported; got nothing.Here",
    "--families Normal Normal": "--families takes each value once; got Normal again",
    "--semi-steps -1": "--semi-steps needs a whole number, 0 or more; got '-1'",
    "--semi-steps 2 2": "--semi-steps takes each value once; got 2 again",
    "--chains 3": "--chains belongs to --annealing; got none. Add --annealing.",
    "--temperatures 0": "--temperatures needs a whole number above 0; got '0'",
    "--compile sometimes": "--compile",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_named_and_nothing_written(words, run, capsys):
    assert main(["compare", str(run), *QUICK, *words.split()]) == 2
    assert WRONG[words] in capsys.readouterr().err
    assert not (run / "gaps.csv").exists()


def test_help_says_what_the_options_are_for(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "--families NAME ...",
        "bayesvae list families",
        "say 1 5 20",
        "--annealing walk from the guide",
        "auto|always|never",
    ):
        assert words in text, words


def test_numbers_that_are_not_finite_are_null_in_a_summary_at_any_depth(tmp_path):
    runs.write_summary(tmp_path, {"comparison": {"train": {"stderr": math.nan, "mean": 1.5}}})
    held = json.loads((tmp_path / "summary.json").read_text())
    assert held == {"comparison": {"train": {"stderr": None, "mean": 1.5}}}
