"""The command line trains, rebuilds and compares runs, and answers mistakes in one line."""

import csv
import json
import math
import sys

import pytest
import torch

from bayesvae.cli import main

SMALL = ["--quiet", "true", "--epochs", "1", "--particles", "5", "--evaluate", "20"]
SMALL += ["--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--latent", "3"]
QUICK = ["--quiet", "true", "--limit", "12", "--particles", "5", "--evidence-particles", "10"]


@pytest.fixture(autouse=True, scope="module")
def _float64_and_seed():
    """In place of the fixture of that name: a user's process has torch's default, float32."""
    assert torch.get_default_dtype() is torch.float32


def fit(folder, *words):
    return main(["fit", *SMALL, "--out", str(folder), *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert fit(folder) == 0
    return folder


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_folder_holds_everything_that_was_promised(run):
    names = ["config.yaml", "last.pt", "best.pt", "metrics.csv", "summary.json"]
    figures = ["samples.png", "reconstructions.png", "training_curve.png"]
    for name in [*names, *(f"figures/{figure}" for figure in figures)]:
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    for name in ("train_elbo", "test_elbo", "test_log_evidence"):
        assert math.isfinite(summary[name]), name
        assert summary[f"{name}_stderr"] > 0, name
    assert summary["test_elbo"] < summary["test_log_evidence"]
    assert {"seconds", "seed", "versions"} <= summary.keys()
    assert len(list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))) == 1


def test_the_test_elbo_of_a_rebuilt_run_is_that_of_the_summary(run, capsys):
    """Catches a run that is rebuilt with other data, other bits or the wrong checkpoint."""
    words = ["--limit", "20", "--particles", "2000", "--evidence-particles", "10"]
    assert main(["compare", str(run), "--quiet", "true", *words]) == 0
    summary = json.loads((run / "summary.json").read_text())
    rows = [
        r
        for r in csv.DictReader((run / "gaps.csv").read_text().splitlines())
        if r["split"] == "unseen"
    ]
    rebuilt = sum(float(row["guide_elbo"]) for row in rows) / len(rows)
    noise = sum(float(row["guide_elbo_stderr"]) ** 2 for row in rows) ** 0.5 / len(rows)
    # The summary's figure has 100 draws where this one has 2,000.
    assert abs(rebuilt - summary["test_elbo"]) < 5 * noise * math.sqrt(1 + 2000 / 100)
    table = capsys.readouterr().out
    assert "amortization gap" in table
    assert "approximation gap" in table
    assert "seconds per 1,000 data" in table


def test_compare_adds_to_the_run_and_keeps_what_fit_wrote(run):
    before = contents(run)
    assert main(["compare", str(run), *QUICK]) == 0
    after = contents(run)
    assert {"gaps.txt", "gaps.csv", "gaps.png"} <= {path.name for path in after}
    kept = [
        p for p in before if p.name not in ("summary.json", "gaps.txt", "gaps.csv", "gaps.png")
    ]
    assert all(after[path] == before[path] for path in kept)
    summary = json.loads((run / "summary.json").read_text())
    for name in ("approximation_gap", "amortization_gap"):
        for prefix in ("", "train_"):
            assert math.isfinite(summary[prefix + name])
            assert summary[f"{prefix}{name}_stderr"] > 0
    assert "test_elbo" in summary


@pytest.mark.parametrize(
    "words",
    [
        ["--prior", "Normal"],
        ["--prior", "Mixture", "--prior.components", "4", "--prior.family", "MultivariateNormal"],
        ["--prior", "Vamp", "--prior.components", "6", "--warmup", "5"],
        ["--family", "MultivariateNormal", "--binarise", "static"],
        ["--guide", "PerDatapoint", "--inner-steps", "2"],
        [
            "--latent",
            "4",
            "3",
            "2",
            "--between",
            "8",
            "--prior",
            "Vamp",
            "--prior.components",
            "5",
        ],
        ["--likelihood", "Normal", "--likelihood.scale", "0.3"],
        ["--likelihood", "Categorical", "--binarise", "none", "--levels", "17"],
        ["--likelihood", "Poisson", "--binarise", "none", "--levels", "17"],
        ["--encoder", "ConvEncoder", "--decoder", "ConvDecoder", "--clip-norm", "5"],
        ["--encoder.activation", "torch.nn.Tanh", "--validation", "0"],
    ],
    ids=lambda words: " ".join(words),
)
def test_every_part_can_be_named_and_its_run_rebuilt(words, tmp_path, capsys):
    drop = 4 if "Conv" in " ".join(words) else 0
    small = SMALL[:-6] + SMALL[-2:] if drop else SMALL
    assert main(["fit", *small, "--out", str(tmp_path / "run"), *words]) == 0, capsys.readouterr()
    assert main(["compare", str(tmp_path / "run"), *QUICK]) == 0, capsys.readouterr()


def test_one_seed_gives_one_run(tmp_path):
    for name in ("first", "second"):
        assert fit(tmp_path / name, "--seed", "3") == 0
    first, second = (torch.load(tmp_path / n / "last.pt") for n in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)


MISTAKES = {
    "command": (["train"], "one of fit, compare; got 'train'"),
    "prior": (["fit", "--prior", "Mix"], "--prior takes one of Mixture, Normal"),
    "likelihood": (["fit", "--likelihood=Gaussian"], "--likelihood takes one of Bernoulli"),
    "family": (["fit", "--prior.family", "Full"], "--prior.family takes one of Multi"),
    "import path": (["fit", "--prior", "no_such.Prior"], "no_such"),
    "argument of a part": (["fit", "--prior", "Mixture", "--prior.clusters", "3"], "clusters"),
    "value of a part": (
        ["fit", "--prior", "Mixture", "--prior.components", "0"],
        "components >= 1",
    ),
    "number": (["fit", "--epochs", "many"], "many"),
    "no epochs": (["fit", "--epochs", "0"], "epochs"),
    "latent": (["fit", "--latent", "0"], "--latent needs positive numbers"),
    "data set": (["fit", "--data", "letters"], "letters"),
    "data root": (["fit", "--data", "mnist", "--data-root", "nowhere"], "nowhere"),
    "grey levels": (["fit", "--binarise", "none"], "binarise"),
    "levels": (["fit", "--levels", "17"], "--levels needs at least 2"),
    "hold-out": (["fit", "--validation", "1.5"], "1.5"),
    "device": (["fit", "--device", "abacus"], "abacus"),
    "layers": (["fit", "--latent", "3", "2", "--guide", "PerDatapoint"], "--guide Amortized"),
    "Vamp without encoder": (
        ["fit", "--guide", "PerDatapoint", "--prior", "Vamp", "--prior.components", "9"],
        "--prior Vamp needs an encoder",
    ),
    "shape": (["fit", "--decoder", "ConvEncoder"], "shape"),
    "no run": (["compare", "nowhere"], "none in nowhere"),
    "option": (["compare", "--speed", "9"], "speed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_no_run(
    mistake, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BAYESVAE_DATA", raising=False)
    words, phrase = MISTAKES[mistake]
    assert main([*words, *(["--quiet", "true"] if words[0] == "fit" else [])]) == 2
    told = capsys.readouterr()
    assert phrase in told.err
    assert told.err.startswith("bayesvae: ")
    assert told.err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_run_is_not_overwritten_unless_told(run, capsys):
    before = contents(run)
    assert fit(run) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert contents(run) == before


def test_overwriting_a_run_leaves_nothing_of_it(tmp_path):
    assert fit(tmp_path) == 0
    assert main(["compare", str(tmp_path), *QUICK]) == 0
    assert fit(tmp_path, "--overwrite", "true") == 0
    assert "amortization_gap" not in json.loads((tmp_path / "summary.json").read_text())
    assert not list(tmp_path.rglob("gaps*"))


def test_a_damaged_checkpoint_is_named(run, tmp_path, capsys):
    for path, content in contents(run).items():
        copy = tmp_path / path.relative_to(run)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content[:100] if path.name == "best.pt" else content)
    assert main(["compare", str(tmp_path), *QUICK]) == 2
    assert "best.pt is not a readable checkpoint" in capsys.readouterr().err


def copied(run, folder):
    for path, content in contents(run).items():
        copy = folder / path.relative_to(run)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)
    return folder


def test_a_checkpoint_of_another_pair_is_named(run, tmp_path, capsys):
    config = copied(run, tmp_path) / "config.yaml"
    config.write_text(config.read_text().replace("latent:\n- 3", "latent:\n- 5"))
    assert main(["compare", str(tmp_path), *QUICK]) == 2
    assert "another pair than its config.yaml" in capsys.readouterr().err


def test_classes_from_elsewhere_are_imported_only_on_trust(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "strange.py").write_text("from bayesvae.priors import StandardNormal as Prior")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = copied(run, tmp_path) / "config.yaml"
    text = config.read_text().replace("bayesvae.priors.StandardNormal", "strange.Prior")
    config.write_text(text)
    assert main(["compare", str(tmp_path), *QUICK]) == 2
    assert "names strange.Prior" in capsys.readouterr().err
    assert "strange" not in sys.modules
    assert main(["compare", str(tmp_path), *QUICK, "--trust", "true"]) == 0


def test_a_damaged_summary_is_named_before_any_work(run, tmp_path, capsys):
    (copied(run, tmp_path) / "summary.json").write_text("{")
    assert main(["compare", str(tmp_path), *QUICK]) == 2
    assert "summary.json is not readable JSON" in capsys.readouterr().err


def test_an_interruption_is_told_and_ends_with_130(run, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["bayesvae.cli.main"], "compare", interrupted)
    assert main(["compare", str(run), *QUICK]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["fit", "--help"], ["compare", "--help"]])
def test_help_teaches(words, capsys):
    if words in ([], ["--help"]):
        assert main(words) == 0
    else:
        with pytest.raises(SystemExit, match="0"):
            main(words)
    text = capsys.readouterr().out
    assert "usage: bayesvae" in text
    assert "runs/mixture" in text if words[:-1] else "compare" in text
