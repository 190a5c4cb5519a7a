"""The command line trains, rebuilds, compares, evaluates and samples runs."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import QUICK, SMALL, contents, copied, fit, table
from matplotlib.text import Text

from bayesvae.cli import main, pictures
from bayesvae.cli.main import COMMANDS
from bayesvae.cli.parts import PARTS

ROOT = Path(__file__).parents[2]


def test_a_run_folder_holds_everything_that_was_promised(run):
    names = ["config.yaml", "data.json", "last.pt", "best.pt", "metrics.csv", "summary.json"]
    figures = ["samples.png", "reconstructions.png", "training_curve.png", "latent_space.png"]
    for name in [*names, *(f"figures/{figure}" for figure in figures)]:
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    for name in ("train_elbo", "test_elbo", "test_log_evidence"):
        assert math.isfinite(summary[name]), name
        assert summary[f"{name}_stderr"] > 0, name
    assert summary["test_elbo"] < summary["test_log_evidence"]
    assert {"seconds", "seed", "versions"} <= summary.keys()
    assert len(table(run / "metrics.csv")) == 1


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_the_test_elbo_of_a_rebuilt_run_is_that_of_the_summary(run, tmp_path):
    """Catches a run that is rebuilt with other data, other bits or the wrong checkpoint."""
    out = tmp_path / "scores.csv"
    words = ["--limit", "20", "--particles", "2000", "--out", str(out)]
    assert main(["evaluate", str(run), "--quiet", *words]) == 0
    summary, rows = json.loads((run / "summary.json").read_text()), table(out)
    assert len(rows) == 20
    assert all(float(row["elbo"]) < float(row["log_evidence"]) for row in rows)
    rebuilt = sum(float(row["elbo"]) for row in rows) / len(rows)
    noise = sum(float(row["elbo_stderr"]) ** 2 for row in rows) ** 0.5 / len(rows)
    # The summary's figure has 100 draws where this one has 2,000.
    assert abs(rebuilt - summary["test_elbo"]) < 5 * noise * math.sqrt(1 + 2000 / 100)
    assert json.loads(out.with_suffix(".json").read_text())["elbo"] == pytest.approx(rebuilt)


def test_compare_adds_to_the_run_and_keeps_what_fit_wrote(run, tmp_path, capsys):
    before = contents(copied(run, tmp_path))
    assert main(["compare", str(tmp_path), *QUICK]) == 0
    printed, after = capsys.readouterr().out, contents(tmp_path)
    figures = ["gaps", "ordered_gaps", "gaps_against_evidence", "worst_data_unseen"]
    files = {"gaps.txt", "gaps.csv", *(f"figures/{name}.png" for name in figures)}
    assert files <= {str(path.relative_to(tmp_path)) for path in after}
    assert ", ".join(figures[:3]) in printed
    grown = ("summary.json", "run.json")
    assert all(after[path] == before[path] for path in before if path.name not in grown)
    assert files <= set(json.loads((tmp_path / "run.json").read_text())["files"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("approximation_gap", "amortization_gap"):
        assert name.replace("_", " ") in printed
        for prefix in ("", "train_"):
            assert math.isfinite(summary[prefix + name])
            assert summary[f"{prefix}{name}_stderr"] > 0
    assert "test_elbo" in summary
    assert {row["split"] for row in table(tmp_path / "gaps.csv")} == {"train", "unseen"}


PAIRS = """
--prior Normal
--prior Mixture --prior.components 4 --prior.family MultivariateNormal
--prior Vamp --prior.components 6 --warmup 5
--family MultivariateNormal --binarise static
--guide PerDatapoint --inner-steps 2
--latent 4 3 --between 8 --prior Vamp --prior.components 5
--likelihood Normal --likelihood.scale 0.3 --latent 2
--levels 17
--likelihood Poisson --levels 17
--encoder ConvEncoder --decoder ConvDecoder --clip-norm 5
--encoder.activation torch.nn.Tanh --validation 0 --steps 7
--kl-weight 0.5 --data shapes
--data ppca --pair PPCA --latent 1
--data curve --prior Vamp --prior.components 9
--data mixture --latent 1 --test 0.4
--guide SemiAmortized --guide.steps 2 --prior Vamp --prior.components 4
""".strip().splitlines()


def trained(folder, words):
    """A small run of a pair in words; networks that have no hidden layers get none."""
    small = SMALL[:-6] + SMALL[-2:] if "Conv" in words else SMALL
    assert main(["fit", *small, "--out", str(folder), *words.split()]) == 0
    return str(folder)


@pytest.mark.parametrize("words", PAIRS)
def test_every_part_can_be_named_and_its_run_rebuilt(words, tmp_path):
    run = trained(tmp_path / "run", words)
    split = ["--split", "train"] if "PerDatapoint" in words else []
    assert main(["evaluate", run, "--quiet", "--limit", "5", "--particles", "3", *split]) == 0
    assert main(["sample", run, "--quiet", "--count", "4"]) == 0
    assert {"samples.png", "reconstructions.npz"} <= {p.name for p in tmp_path.rglob("*")}


def test_a_comparison_of_two_latents_draws_their_posteriors(tmp_path):
    assert fit(tmp_path / "run", "--latent", "2") == 0
    assert main(["compare", str(tmp_path / "run"), *QUICK]) == 0
    assert (tmp_path / "run" / "figures" / "posteriors_unseen.png").is_file()


@pytest.mark.parametrize("words", [PAIRS[1], PAIRS[4], PAIRS[5], PAIRS[7]])
def test_the_gaps_of_every_kind_of_pair_can_be_taken_apart(words, tmp_path):
    assert main(["compare", trained(tmp_path / "run", words), *QUICK]) == 0
    assert (tmp_path / "run" / "figures" / "gaps.png").is_file()


def test_one_seed_gives_one_run(tmp_path):
    for name in ("first", "second"):
        assert fit(tmp_path / name, "--seed", "3") == 0
    first, second = (torch.load(tmp_path / n / "last.pt") for n in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_is_rebuilt_from_its_folder_alone(tmp_path, monkeypatch, capsys):
    """Catches a pair that needs the data, or the old place, to be built again."""
    monkeypatch.chdir(tmp_path)
    rows = torch.randn(60, 4) * 9
    np.save("mine.npy", rows.numpy())
    words = ["--data", "mine.npy", "--prior", "Vamp", "--prior.components", "7", "--latent", "2"]
    assert fit("run", *words) == 0
    (tmp_path / "mine.npy").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename("elsewhere/moved")
    monkeypatch.chdir("elsewhere")
    assert main(["sample", "moved", "--show", "draws", "--count", "3"]) == 0
    drawn = np.load("moved/samples/samples.npz")
    assert drawn["draw"].shape[1:] == (4,)
    assert drawn["draw"].std() > 3, "draws are in the data's own units"
    assert main(["sample", "moved", "--overwrite"]) == 0
    assert "Only draws" in capsys.readouterr().out
    assert main(["evaluate", "moved"]) == 2
    np.save("others.npy", rows[:9].numpy())
    assert main(["evaluate", "moved", "--data", "others.npy", "--particles", "3"]) == 0
    assert len(table(tmp_path / "elsewhere/moved/evaluations/others.csv")) == 9


def test_what_is_shown_is_what_was_asked_for(run, tmp_path):
    words = ["--quiet", "--out", str(tmp_path / "s"), "--count", "6", "--steps", "5"]
    assert main(["sample", str(run), "--show", "draws", "traversals", *words]) == 0
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {
        f"{name}.{kind}" for name in ("samples", "traversals") for kind in ("png", "npz")
    }
    made = np.load(tmp_path / "s" / "traversals.npz")
    assert made["mean"].shape == (3, 5, 1, 8, 8)
    assert np.load(tmp_path / "s" / "samples.npz")["latent_z"].shape == (6, 3)


def test_pictures_number_latents_as_a_calibration_does_and_data_as_a_table_does(
    tmp_path, monkeypatch
):
    """Catches a "z2" that is z[1] elsewhere, and a datum 1 that is at position 0."""
    assert fit(tmp_path, "--latent", "2") == 0
    figures, write = {}, pictures.Look.write

    def kept(look, name, figure, **arrays):
        figures[name] = figure
        write(look, name, figure, **arrays)

    monkeypatch.setattr(pictures.Look, "write", kept)
    assert main(["sample", str(tmp_path), "--show", "traversals", "posteriors"]) == 0
    said = {
        name: " ".join(text.get_text() for text in figure.findobj(Text))
        for name, figure in figures.items()
    }
    assert set(re.findall(r"(\S+), variance", said["traversals"])) == {"z[0]", "z[1]"}
    assert re.findall(r"datum (\d)", said["posteriors"]) == [*"012345"]


def test_options_of_a_file_are_those_of_the_words(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *SMALL, "--prior", "Mixture", "--prior.components", "4", "--print_config"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["prior"]["init_args"]["components"] == 4
    (tmp_path / "options.yaml").write_text(printed)
    words = ["--config", str(tmp_path / "options.yaml"), "--out", str(tmp_path / "run")]
    assert main(["fit", *words]) == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["prior"]["init_args"]["components"] == 4
    assert written["epochs"] == 1


def test_an_interrupted_run_can_be_used(tmp_path):
    """A real Ctrl-C, in the middle of training."""
    words = ["fit", "--epochs", "100000", "--out", str(tmp_path / "run"), "--validation", "0"]
    words += ["--compile", "never"]  # or the first epoch waits for the compiler
    told = interrupted([sys.executable, "-m", "bayesvae", *words], tmp_path / "run" / "last.pt")
    assert "Traceback" not in told
    assert "interrupted" in told
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["interrupted"]
    words = ["--quiet", "--limit", "5", "--particles", "3"]
    assert main(["evaluate", str(tmp_path / "run"), *words]) == 0
    assert main(["sample", str(tmp_path / "run"), "--quiet", "--show", "draws"]) == 0


def interrupted(command, file):
    """Presses Ctrl-C once a file is there; what the process had to say, if it ended well."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    quiet = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=env, **quiet) as process:
        deadline = time.monotonic() + 300
        while not file.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130, told
    return told


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["fit", "--columns", "a"], "--columns tells how to read a file; got the data set digits"),
        (["fit", "--grey", "--divide", "2"], "--grey, --divide tells how to read a file"),
        (["evaluate", "RUN", "--image-size", "8"], "--image-size tells how to read a file"),
        (["sample", "RUN", "--data", "digits", "--array", "x"], "--array tells how to read"),
        (["evaluate", "RUN", "--split", "train", "--data", "digits"], "got --data too"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(words, phrase, run, capsys):
    assert main([str(run) if word == "RUN" else word for word in [*words, "--quiet"]]) == 2
    assert phrase in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(60, 4, 8, 8), (60, 2, 3, 4, 5)])
def test_data_that_no_picture_can_show_are_trained_on_and_evaluated_all_the_same(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random(shape))
    assert fit(tmp_path / "run", "--data", str(tmp_path / "x.npy")) == 0
    assert math.isfinite(json.loads((tmp_path / "run" / "summary.json").read_text())["test_elbo"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"usage: bayesvae {command}" in text
    assert "Example" in text
    assert "<class" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_help_of_fit_shows_every_part_with_its_arguments(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    for key, part in PARTS.items():
        assert f"--{key} NAME" in text
        assert all(f"    {name}" in text for name in part.classes)
    plain = " ".join(text.split())
    assert "--prior.components C, the number of components. (default: 10)" in plain
    assert (
        "--encoder.hidden widths of the hidden layers; empty for an affine map. (default: [200])"
        in plain
    )


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_program_alone_says_what_it_can_do(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("digits", "kmnist", "omniglot", "Vamp", "Poisson", "MultivariateNormal", "ppca"):
        assert name in text
    pairs = text.partition("pairs:\n")[2].rstrip().splitlines()
    assert len({re.match(r"  .*?\S  +", line).end() for line in pairs}) == 1, "one column"
    assert main(["list", "priors"]) == 0
    assert "Poisson" not in capsys.readouterr().out
