"""The inference-gaps benchmark: its rule for claims, what it says, and that it goes on."""

import doctest
import importlib
import json
from math import inf
from pathlib import Path

import pytest
import torch

from bayesvae import data
from bayesvae.data import Splits
from bayesvae.optima import Ascent

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    torch.set_default_dtype(torch.float32)


def part(name):
    return importlib.import_module(f"benchmarks.inference_gaps.{name}")


def around(mean, spread=0.1):
    """100 numbers of exactly this mean, whose standard error is a tenth of the spread."""
    noise = torch.linspace(-1, 1, 100, dtype=torch.double)
    return mean + spread * noise / noise.std()


def table(guide, diagonal, evidence, flow=None, **more):
    columns = {
        "guide": around(guide),
        "optimum_Normal": around(diagonal),
        "importance": around(evidence),
        "annealed": around(evidence - 0.5),
        "k_hat": torch.linspace(0.5, 0.9, 100),
    }
    return columns | ({} if flow is None else {"optimum_Flow": around(flow)}) | more


def run(**changes):
    """Four set-ups with numbers that let every claim hold on MNIST."""
    measured = part("measure").Measured
    setups = {
        "standard": ("Normal", (-100.0, -98.0, -96.5), -100.0),
        "encoder": ("Normal", (-99.7, -98.0, -96.5), -101.0),
        "decoder": ("Normal", (-97.0, -95.0, -94.5), -98.0),
        "flow": ("Flow", (-99.0, -99.5, -96.0, -96.5), -99.5),
    } | changes
    made = {
        name: measured(own, {"train": table(*bounds), "unseen": table(*bounds)}, around(elbo), {})
        for name, (own, bounds, elbo) in setups.items()
    }
    return part("claims").Run(made, "importance")


# The rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "stderr", "low", "high", "expected"),
    [
        (1.0, 0.4, 0.0, inf, "held"),
        (1.0, 0.6, 0.0, inf, "undecided"),
        (-1.0, 0.6, 0.0, inf, "undecided"),
        (-1.0, 0.4, 0.0, inf, "did not hold"),
        (2.0, 0.1, 1.0, 3.0, "held"),
        (2.0, 0.6, 1.0, 3.0, "undecided"),
        (3.5, 0.1, 1.0, 3.0, "did not hold"),
        (0.5, 0.1, 1.0, 3.0, "did not hold"),
        (2.0, float("nan"), 1.0, 3.0, "undecided"),
    ],
)
def test_two_standard_errors_to_either_side_decide(mean, stderr, low, high, expected):
    assert part("claims").verdict(mean, stderr, low, high) == expected


def test_all_claims_hold_where_the_numbers_say_so_and_errors_are_paired():
    outcomes = part("claims").judged(run(), "mnist")
    assert [each.verdict for each in outcomes] == ["held"] * len(part("claims").CLAIMS)
    # The noise of `around` is common to all columns: unpaired errors would be 0.01 at least.
    assert all(p.stderr < 1e-6 for each in outcomes for p in each.parts if "3" not in p.name)


WORSE = {
    "of the same order": {"standard": ("Normal", (-104.0, -98.0, -96.5), -100.0)},
    "either gap": {"standard": ("Normal", (-100.0, -96.0, -92.5), -100.0)},
    "badly fitted": {"flow": ("Flow", (-99.0, -97.0, -96.0, -96.5), -99.5)},
    "towards log p": {"decoder": ("Normal", (-97.0, -95.0, -93.0), -98.0)},
    "shrinks the amortization": {"encoder": ("Normal", (-100.7, -98.0, -96.5), -101.0)},
    "ELBO of unseen": {"encoder": ("Normal", (-99.7, -98.0, -96.5), -99.0)},
}


@pytest.mark.parametrize("words", WORSE)
def test_a_claim_fails_alone_where_its_own_numbers_speak_against_it(words):
    claims = part("claims")
    failed = [
        each.claim.text
        for each in claims.judged(run(**WORSE[words]), "mnist")
        if each.verdict == claims.FAILED
    ]
    assert any(words in text for text in failed)
    assert len(failed) == (2 if words == "of the same order" else 1)  # a gap of 6 is no 1 to 3


def test_a_claim_is_not_judged_without_its_set_ups():
    claims = part("claims")
    whole = run()
    few = whole._replace(measured={k: whole.measured[k] for k in ("standard", "decoder")})
    texts = [each.claim.text for each in claims.judged(few, "mnist")]
    assert len(texts) == 3
    assert "larger decoder" in texts[-1]


def test_the_sizes_that_were_published_depend_on_the_data():
    claims = part("claims")
    sizes = [
        each for each in claims.judged(run(), "fashion-mnist") if "several" in each.claim.text
    ]
    assert [(p.mean, p.low, p.high, p.verdict) for p in sizes[0].parts] == [
        (pytest.approx(2.0), 2.0, 10.0, "undecided"),
        (pytest.approx(1.5), 2.0, 10.0, "did not hold"),
    ]


def test_one_estimate_of_log_p_serves_all_images_and_the_higher_of_two_is_never_picked_by_image():
    claims, measured = part("claims"), part("measure").Measured
    first = {"importance": torch.tensor([-9.0, -1.0]), "annealed": torch.tensor([-5.0, -4.0])}
    second = {"importance": torch.tensor([-3.0]), "annealed": torch.tensor([-5.0])}
    results = [measured("Normal", {"train": each}, torch.zeros(1), {}) for each in (first, second)]
    assert claims.better_evidence(results[:1]) == "annealed"
    assert claims.better_evidence(results) == "importance"
    columns = first | {"guide": torch.zeros(2), "optimum_Normal": torch.zeros(2)}
    gaps = claims.Gaps(columns, "Normal", "annealed")
    assert gaps.approximation("Normal").tolist() == [-5.0, -4.0]


# What is said ------------------------------------------------------------------------------------


def test_the_table_shows_the_own_familys_gap_and_the_diagonals_apart():
    said = part("table")
    rows = {
        row[1:3]: dict(zip(said.HEADER, row, strict=True)) for row in said.rows({"mnist": run()})
    }
    flow = rows["flow posterior", "unseen"]
    assert flow["amortization gap"].startswith("2.50")
    assert flow["approximation gap"].startswith("0.50")
    assert flow["of the diagonal"].startswith("3.50")
    assert flow["k-hat > 0.7"] == "50 %"
    assert flow["ELBO, all unseen"].startswith("-99.50")
    assert rows["flow posterior", "train"]["ELBO, all unseen"] == ""


def test_every_claim_is_said_with_its_numbers_its_range_and_its_verdict():
    runs = {"mnist": run(**WORSE["towards log p"])}
    outcomes = {"mnist": part("claims").judged(runs["mnist"], "mnist")}
    said = part("table").text(runs, outcomes, ["QUICK"])
    assert said.splitlines()[0] == said.splitlines()[-1] == "QUICK"
    assert "DID NOT HOLD  a larger decoder brings" in said
    assert "approximation gap: larger decoder - standard: +0.50 ± 0.00, should be below 0" in said
    assert "Used: importance sampling" in said


def test_the_file_of_results_is_json_without_infinities(tmp_path):
    runs = {"mnist": run()}
    outcomes = {"mnist": part("claims").judged(runs["mnist"], "mnist")}
    written = json.dumps(part("table").as_json(runs, outcomes), allow_nan=False)
    claims = json.loads(written)["claims"]["mnist"]
    assert [each["verdict"] for each in claims] == ["held"] * len(claims)
    part("table").save_csv(tmp_path / "images.csv", runs)
    lines = (tmp_path / "images.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 2 * 100
    assert lines[1].startswith("mnist,standard,train,0,")


def test_a_bar_is_as_long_as_the_whole_gap_and_errors_sit_at_the_ends_of_its_parts():
    (train, _) = part("figure").gap_bars({"mnist": run()}).axes
    standard = [line.get_xdata()[0] for line in train.lines[:2]]
    assert standard == [pytest.approx(1.5), pytest.approx(3.5)]
    ends = {round(bar.get_y() + 0.3): bar.get_x() + bar.get_width() for bar in train.patches}
    assert ends == {k: pytest.approx(v) for k, v in enumerate((3.5, 3.2, 2.5, 3.0))}


# A run -------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """A command on a few digits, which counts trainings."""
    command, measure, setups = part("__main__"), part("measure"), part("setups")
    splits = data.digits()
    small = Splits(splits.train[:140], splits.test[:12])
    settings = measure.QUICK._replace(
        latent=2,
        images=5,
        elbo_images=8,
        temperatures=2,
        pilot=0,
        ascent=Ascent(stages=1, windows=1, window=3),
    )
    monkeypatch.setattr(command, "QUICK", settings)
    monkeypatch.setitem(setups.READERS, "mnist", lambda root: small)
    trainings, fit = [], measure.fit

    def counted(*args, **kwargs):
        trainings.append(args)
        return fit(*args, **kwargs)

    monkeypatch.setattr(measure, "fit", counted)
    return command, trainings


def test_an_interrupted_run_keeps_its_table_goes_on_and_ends_where_it_would_have(
    tiny, tmp_path, capsys, monkeypatch
):
    command, trainings = tiny
    parts, calls = part("measure").PARTS, []
    words = ["--quick", "--data", "mnist", "--setups", "standard", "flow", "--out"]
    assert command.main([*words, str(tmp_path / "whole")]) == 0
    whole = capsys.readouterr().out.replace("whole-quick", "broken-quick")

    def interrupted(job, annealed=parts["annealed"]):
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return annealed(job)

    monkeypatch.setitem(parts, "annealed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main([*words, str(tmp_path / "broken")])
    known = (tmp_path / "broken-quick" / "table.md").read_text()
    assert "| standard |" in known
    assert "| flow posterior |" not in known
    assert command.main([*words, str(tmp_path / "broken")]) == 0
    assert capsys.readouterr().out == whole
    assert len(trainings) == 4  # of two set-ups, once in each folder
    images = [(tmp_path / f"{name}-quick" / "images.csv") for name in ("whole", "broken")]
    assert images[0].read_text() == images[1].read_text()
    assert (tmp_path / "whole-quick" / "gaps.png").stat().st_size > 0


def test_results_of_other_settings_are_not_mixed_in(tiny, tmp_path, capsys):
    command, trainings = tiny
    folder = tmp_path / "gaps"
    folder.mkdir()
    command.note_settings(folder, part("measure").Settings(epochs=3))
    assert command.main(["--data", "mnist", "--out", str(folder), "--epochs", "4"]) == 2
    assert "{'epochs': 3}" in capsys.readouterr().err
    assert trainings == []


def test_the_help_teaches_every_set_up_and_data_set(capsys):
    with pytest.raises(SystemExit, match="0"):
        part("__main__").main(["--help"])
    said = capsys.readouterr().out
    words = [*part("setups").SETUPS, *part("setups").READERS, "examples", "--quick", "--epochs"]
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize("name", ["setups", "claims", "table"])
def test_the_examples_in_docstrings_hold(name):
    outcome = doctest.testmod(part(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
