"""Every mistake is one line with rule, received and remedy, exit code 2, and nothing is lost."""

import json
import os

import pytest
from commands import QUICK, SMALL, contents, copied, fit, told

from bayesvae.cli import main

FIT = {
    "data set": (["--data", "letters"], "letters"),
    "data root": (["--data", "mnist", "--data-root", "nowhere"], "nowhere"),
    "file that is not there": (["--data", "gone.npy"], "gone.npy"),
    "kind of file": (["--data", "data.xyz"], ".npz"),
    "one row": (["--data", "one.npy"], "one.npy"),
    "no rows": (["--data", "none.npy"], "none.npy"),
    "no columns": (["--data", "flat.npy"], "flat.npy"),
    "words as numbers": (["--data", "words.npy"], "words.npy"),
    "pickled objects": (["--data", "objects.npy"], "objects.npy"),
    "not finite": (["--data", "holes.npy"], "finite"),
    "several arrays": (["--data", "two.npz"], "array"),
    "wrong array": (["--data", "two.npz", "--array", "third"], "third"),
    "truncated npz": (["--data", "cut.npz"], "cut.npz"),
    "truncated npy": (["--data", "cut.npy"], "cut.npy"),
    "truncated pt": (["--data", "cut.pt"], "cut.pt"),
    "pickled module": (["--data", "pickle.pt"], "pickle.pt"),
    "a word in a table": (["--data", "words.csv"], "line 9"),
    "a gap in a table": (["--data", "gap.csv"], "line 14"),
    "a header alone": (["--data", "header.csv"], "header.csv"),
    "an empty table": (["--data", "empty.csv"], "empty.csv"),
    "column": (["--data", "table.csv", "--columns", "a", "z"], "'z'"),
    "label column": (["--data", "table.csv", "--labels", "z"], "'z'"),
    "a folder without images": (["--data", "no_images"], "no_images"),
    "images of several sizes": (["--data", "sizes"], "image"),
    "a broken image": (["--data", "broken"], "0.png"),
    "size of images": (["--data", "sizes", "--image-size", "0"], "--image-size"),
    "divisor": (["--data", "rows.npy", "--divide", "0"], "--divide needs a number above 0"),
    "likelihood for reals": (
        ["--data", "rows.npy", "--likelihood", "Bernoulli"],
        "choose --likelihood Normal",
    ),
    "grey levels as bits": (
        ["--likelihood", "Bernoulli", "--binarise", "none"],
        "choose --likelihood Normal or --binarise dynamic",
    ),
    "bits of reals": (["--data", "rows.npy", "--binarise", "static"], "--binarise static needs"),
    "standardised bits": (["--standardise", "true"], "--standardise"),
    "levels": (["--levels", "17", "--binarise", "dynamic"], "--levels needs"),
    "levels of reals": (["--data", "rows.npy", "--levels", "17"], "--levels needs"),
    "hold-out": (["--validation", "1.5"], "--validation needs a share"),
    "share of tests": (["--test", "-1"], "--test needs a share"),
    "prior": (["--prior", "Mix"], "--prior takes one of Mixture, Normal"),
    "likelihood": (["--likelihood=Gaussian"], "--likelihood takes one of Bernoulli"),
    "inner family": (["--prior.family", "Full"], "--prior.family takes one of Flow"),
    "module": (["--prior", "no_such.Prior"], "no_such"),
    "module that fails": (["--prior", "bad_module.Prior"], "RuntimeError: no luck"),
    "class": (["--prior", "my_module.Absent"], "found nothing at my_module.Absent"),
    "class of another kind": (["--prior", "my_module.NoPrior"], "torch Module; found NoPrior"),
    "own argument": (["--prior", "Mixture", "--prior.clusters", "3"], "got --prior.clusters"),
    "value of a part": (["--prior", "Mixture", "--prior.components", "0"], "components >= 1"),
    "type of a part's value": (
        ["--prior", "Mixture", "--prior.components", "x"],
        "--prior.components needs a whole number; got 'x'",
    ),
    "number": (["--epochs", "many"], "--epochs needs a whole number above 0; got 'many'"),
    "no epochs": (["--epochs", "0"], "--epochs needs a whole number above 0; got '0'"),
    "step size": (["--learning-rate", "-1"], "--learning-rate needs a number above 0"),
    "latent": (["--latent", "0"], "--latent needs a whole number above 0"),
    "device": (["--device", "abacus"], "abacus"),
    "layers": (["--latent", "3", "2", "--guide", "PerDatapoint"], "--guide Amortized"),
    "Vamp without encoder": (
        ["--guide", "PerDatapoint", "--prior", "Vamp", "--prior.components", "9"],
        "--prior Vamp needs an encoder",
    ),
    "decoder": (["--decoder", "ConvEncoder"], "--decoder takes one of ConvDecoder, MLP"),
    "images for convolutions": (
        ["--data", "rows.npy", "--encoder", "ConvEncoder"],
        "--encoder ConvEncoder needs images",
    ),
    "pair for images": (["--pair", "PPCA"], "--pair PPCA needs columns"),
    "config that is not there": (["--config", "gone.yaml"], "gone.yaml"),
    "config that is no YAML": (["--config", "not.yaml"], "not.yaml"),
    "config without options": (["--config", "list.yaml"], "list.yaml"),
    "option in a config": (["--config", "wrong.yaml"], "speed"),
    "option": (["--speed", "9"], "--speed 9"),
    "option without value": (["--epochs"], "--epochs needs"),
    "folder that is a file": (["--out", "file"], "--out needs a folder; got file"),
    "folder below a file": (["--out", "file/run"], "file"),
    "folder that cannot be made": (["--out", "/proc/run"], "/proc/run"),
}


@pytest.mark.parametrize("mistake", FIT)
def test_a_mistake_in_fit_is_one_line_with_exit_code_2_and_loses_nothing(mistake, place, capsys):
    words, phrase = FIT[mistake]
    before = contents(place)
    assert main(["fit", *words, *([] if words == ["--epochs"] else SMALL[:1])]) == 2
    assert phrase in told(capsys)
    assert contents(place) == before


OTHERS = {
    "command": (
        ["train"],
        "one of fit, compare, evaluate, bracket, calibrate, sample, list; got 'train'",
    ),
    "kind of list": (["list", "colours"], "list takes one of data, priors"),
    "no run": (["compare", "nowhere"], "none in nowhere"),
    "no run named": (["compare"], "run"),
    "option of compare": (["compare", "RUN", "--speed", "9"], "--speed 9"),
    "shape of other data": (["evaluate", "RUN", "--data", "rows.npy"], "shape (1, 8, 8)"),
    "other data not there": (["evaluate", "RUN", "--data", "gone.npy"], "gone.npy"),
    "split": (["evaluate", "RUN", "--split", "half"], "half"),
    "proposal": (["evaluate", "RUN", "--proposal", "oracle"], "--proposal takes one of guide"),
    "a path that is not walked": (
        ["evaluate", "RUN", "--chains", "4", "--temperatures", "9"],
        "--temperatures, --chains belongs to --annealing; got none",
    ),
    "no temperatures": (["bracket", "RUN", "--temperatures", "0"], "--temperatures needs"),
    "no data to bracket": (["bracket", "RUN", "--data-count", "0"], "--data-count needs"),
    "few data to calibrate on": (
        ["calibrate", "RUN", "--data-count", "9"],
        "--data-count of 50 or more",
    ),
    "folder of a bracket": (["bracket", "RUN", "--out", "sizes"], "sizes is there already"),
    "folder of a calibration": (["calibrate", "RUN", "--out", "file"], "file is there already"),
    "no draws": (["evaluate", "RUN", "--particles", "0"], "--particles needs"),
    "where to": (["evaluate", "RUN", "--out", "table.csv"], "table.csv is there already"),
    "a table called JSON": (["evaluate", "RUN", "--out", "t.json"], "got t.json. Use t.csv."),
    "what to show": (["sample", "RUN", "--show", "films"], "films"),
    "what there is not": (["sample", "RUN", "--show", "posteriors"], "posteriors two latents"),
    "folder of samples": (["sample", "RUN", "--out", "sizes"], "sizes is there already"),
    "unfit data root": (["compare", "RUN", "--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("mistake", OTHERS)
def test_a_mistake_in_another_command_is_one_line_and_loses_nothing(mistake, run, place, capsys):
    words, phrase = OTHERS[mistake]
    before = contents(place), contents(run)
    assert main([str(run) if word == "RUN" else word for word in words]) == 2
    assert phrase in told(capsys)
    assert (contents(place), contents(run)) == before


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def swap(path):
    path.write_text(path.read_text().replace("latent:\n- 3", "latent:\n- 5"))


def forget_size(path):
    content = json.loads(path.read_text())
    del content["size"]
    path.write_text(json.dumps(content))


DAMAGE = {
    "a cut checkpoint": ("best.pt", cut, "best.pt is not a readable checkpoint"),
    "no checkpoint": ("best.pt", os.remove, "best.pt"),
    "a checkpoint of another pair": ("config.yaml", swap, "another pair than its config.yaml"),
    "a cut summary": ("summary.json", cut, "summary.json is not readable JSON"),
    "cut facts": ("data.json", cut, "data.json is not readable JSON"),
    "facts that lack one": ("data.json", forget_size, "data.json lacks size"),
    "no facts": ("data.json", os.remove, "data.json"),
    "no YAML": ("config.yaml", lambda path: path.write_text("a: ["), "config.yaml"),
    "no options": ("config.yaml", lambda path: path.write_text("3"), "config.yaml"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["compare", "evaluate", "sample", "bracket", "calibrate"])
def test_damage_to_a_run_is_named_before_any_work(damage, command, run, tmp_path, capsys):
    name, hurt, phrase = DAMAGE[damage]
    hurt(copied(run, tmp_path) / name)
    before = contents(tmp_path)
    assert main([command, str(tmp_path), "--quiet"]) == 2
    assert phrase in told(capsys)
    assert contents(tmp_path) == before


def test_results_are_not_overwritten_unless_told(run, tmp_path, capsys):
    copied(run, tmp_path)
    quick = ["--quiet", "--limit", "5", "--particles", "3"]
    for words in (
        ["compare", str(tmp_path), *QUICK],
        ["evaluate", str(tmp_path), *quick],
        ["sample", str(tmp_path), "--quiet", "--show", "draws"],
    ):
        assert main(words) == 0
        before = contents(tmp_path)
        capsys.readouterr()
        assert main(words) == 2
        assert "--overwrite" in told(capsys)
        assert contents(tmp_path) == before
        assert main([*words, "--overwrite"]) == 0


def test_a_run_is_not_overwritten_unless_told(run, capsys):
    before = contents(run)
    assert fit(run) == 2
    assert "--overwrite" in told(capsys)
    assert contents(run) == before


def test_overwriting_a_run_leaves_nothing_of_it(tmp_path):
    assert fit(tmp_path) == 0
    assert main(["compare", str(tmp_path), *QUICK]) == 0
    assert main(["sample", str(tmp_path), "--quiet", "--show", "draws"]) == 0
    assert fit(tmp_path, "--overwrite") == 0
    assert "amortization_gap" not in json.loads((tmp_path / "summary.json").read_text())
    assert not list(tmp_path.rglob("gaps*"))
    assert not (tmp_path / "samples").exists()


def test_a_guide_with_rows_refuses_data_that_it_has_no_rows_for(tmp_path, capsys):
    assert fit(tmp_path / "run", "--guide", "PerDatapoint") == 0
    capsys.readouterr()
    for words in ([], ["--data", "digits"]):
        assert main(["evaluate", str(tmp_path / "run"), "--quiet", *words]) == 2
        assert "a row for each training datum" in told(capsys)
