"""Run folders: nothing of anyone's is lost, whatever happens when."""

import errno
import json
import os
import shutil
import signal
import sys
import time
from functools import partial

import numpy as np
import pytest
from commands import QUICK, contents, copied, fit
from linear_gaussian import drawn, learnable, rotated

from bayesvae import fit as train_pair
from bayesvae.cli import main


@pytest.mark.parametrize(
    "name", ["code/thesis.py", "samples/s.wav", "config.yaml", "figures/a.png"]
)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_that_is_no_run_is_left_alone(name, overwrite, tmp_path, monkeypatch, capsys):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    for out in (".", str(tmp_path)):
        assert fit(out, *overwrite) == 2
        assert "Choose another name" in capsys.readouterr().err
    assert [path.read_bytes() for path in contents(tmp_path)] == [b"mine"]


def test_a_run_may_lie_beside_other_files_and_leaves_them_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert fit(tmp_path) == 0
    assert fit(tmp_path, "--overwrite") == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.parent.glob(f".{tmp_path.name}.*")] == []


def test_an_empty_name_is_no_folder(capsys):
    assert fit("") == 2
    assert "--out needs a text, not empty" in capsys.readouterr().err


def failing(kind):
    def fails(*_, **__):
        raise kind

    return fails


@pytest.mark.parametrize("kind", [FloatingPointError("no luck"), KeyboardInterrupt()])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_run_that_gets_nowhere_brings_the_earlier_one_back(
    kind, earlier, run, tmp_path, monkeypatch
):
    folder = copied(run, tmp_path / "run") if earlier else tmp_path / "run"
    before = contents(folder)
    monkeypatch.setattr(sys.modules["bayesvae.cli.train"], "fit", failing(kind))
    assert fit(folder, "--overwrite") in (2, 130)
    assert contents(folder) == before
    assert folder.exists() == earlier


def test_an_earlier_run_comes_back_after_a_killed_process(run, tmp_path, capsys):
    folder = copied(run, tmp_path / "run")
    before = contents(folder)
    folder.rename(tmp_path / ".run.bayesvae-earlier")
    folder.mkdir()
    (folder / "run.json").write_text((tmp_path / ".run.bayesvae-earlier" / "run.json").read_text())
    (folder / "config.yaml").write_text("half")
    (folder / "data.json").write_text("half")
    assert fit(folder) == 2
    assert "holds one" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("phase", ["log_evidence", "elbo_per_datum"])
def test_an_interruption_after_training_leaves_a_run_that_can_be_read(
    phase, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys.modules["bayesvae.cli.train"], phase, failing(KeyboardInterrupt()))
    assert fit(tmp_path / "run") == 130
    assert "holds what training had reached" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["interrupted"]
    assert main(["sample", str(tmp_path / "run"), "--quiet", "--show", "draws"]) == 0


def test_an_interrupted_comparison_leaves_the_run_as_it_was(run, tmp_path, monkeypatch, capsys):
    before = contents(copied(run, tmp_path))
    module = sys.modules["bayesvae.cli.comparing"]
    monkeypatch.setattr(module, "compare", failing(KeyboardInterrupt()))
    assert main(["compare", str(tmp_path), *QUICK]) == 130
    assert "interrupted; nothing was lost" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--out", "/proc/run"],
        ["evaluate", "RUN", "--out", "/proc/scores.csv"],
        ["sample", "RUN", "--out", "/proc/samples"],
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_any_work(words, run, monkeypatch, capsys):
    for module in ("train", "examine"):
        for name in ("fit", "elbo_per_datum"):
            missing = {"raising": False}
            found = sys.modules[f"bayesvae.cli.{module}"]
            monkeypatch.setattr(found, name, failing(AssertionError("worked")), **missing)
    assert main([*(str(run) if word == "RUN" else word for word in words), "--quiet"]) == 2
    assert "/proc" in capsys.readouterr().err


def test_the_figures_of_the_summary_can_be_had_again_to_the_last_digit(run, tmp_path):
    out = tmp_path / "scores.csv"
    words = ["--limit", "20", "--particles", "50", "--out", str(out), "--quiet"]
    assert main(["evaluate", str(run), *words]) == 0
    summary = json.loads((run / "summary.json").read_text())
    again = json.loads(out.with_suffix(".json").read_text())
    assert again["elbo"] == summary["test_elbo"]
    assert again["log_evidence"] == summary["test_log_evidence"]


def test_one_seed_gives_one_checkpoint_byte_by_byte(tmp_path):
    for name in ("first", "second"):
        assert fit(tmp_path / name, "--seed", "3") == 0
    for name in ("best.pt", "last.pt", "data.json"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("first", "second"))
        assert first == second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_ends_processes_ends_a_command_as_ctrl_c_does(
    number, run, tmp_path, monkeypatch, capsys
):
    folder = copied(run, tmp_path / "run")
    before = contents(folder)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]

    def sent(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(sys.modules["bayesvae.cli.train"], "fit", sent)
    assert fit(folder, "--overwrite") == 128 + number
    assert "interrupted; nothing was lost" in capsys.readouterr().err
    assert contents(folder) == before
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == handlers


@pytest.mark.parametrize("change", ["rows shuffled", "columns reversed", "none"])
def test_data_that_changed_since_training_are_noticed(change, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save("rows.npy", x)
    assert fit("run", "--data", "rows.npy") == 0
    changed = {"rows shuffled": x[::-1], "columns reversed": x[:, ::-1], "none": x}[change]
    np.save("rows.npy", np.ascontiguousarray(changed))
    capsys.readouterr()
    assert main(["compare", "run", *QUICK]) == 0
    assert ("other data" in capsys.readouterr().err) == (change != "none")


@pytest.mark.parametrize("entry", [{"format": 2}, {"later": 1}])
def test_facts_of_a_later_version_are_refused(entry, run, tmp_path, capsys):
    path = copied(run, tmp_path / "run") / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    assert main(["sample", str(tmp_path / "run"), "--quiet"]) == 2
    assert "data.json" in capsys.readouterr().err


def test_a_column_may_have_any_name(tmp_path, monkeypatch):
    """A dollar sign is no formula, and a picture that fails takes no table with it."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(40, 3)).round(3).tolist()
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "table.csv").write_text("$$,\\alpha{,$x^\n" + text + "\n")
    assert fit("run", "--data", "table.csv", "--latent", "2") == 0
    assert main(["compare", "run", *QUICK]) == 0
    assert main(["sample", "run", "--quiet"]) == 0


def test_gaps_are_kept_where_a_picture_fails(run, tmp_path, monkeypatch, capsys):
    folder = copied(run, tmp_path / "run")
    kind = sys.modules["bayesvae.cli.comparing"].Comparison
    monkeypatch.setattr(kind, "figures", failing(ValueError("no font")))
    assert main(["compare", str(folder), *QUICK]) == 0
    assert "could be drawn (no font)" in capsys.readouterr().err
    assert (folder / "gaps.csv").exists()


def test_a_disk_that_is_full_is_told_as_such_and_costs_no_run(run, tmp_path, monkeypatch, capsys):
    folder = copied(run, tmp_path / "run")
    before = contents(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["bayesvae.core.files"].torch, "save", full)
    assert fit(folder, "--overwrite") == 2
    assert "The disk is full" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("fate", ["removed", "renamed", "stripped"])
def test_a_folder_that_goes_while_training_is_an_error(fate, tmp_path, monkeypatch, capsys):
    """Catches a run that ends well and cannot be read."""
    folder, train = tmp_path / "run", sys.modules["bayesvae.cli.train"]
    trained = train.elbo_per_datum

    def meanwhile(*args, **named):
        if fate == "removed":
            shutil.rmtree(folder)
        elif fate == "renamed" and folder.exists():
            folder.rename(tmp_path / "elsewhere")
        else:
            (folder / "config.yaml").unlink(missing_ok=True)
        return trained(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train, "elbo_per_datum", meanwhile)
        patch.setattr(shutil, "rmtree", partial(shutil.rmtree, ignore_errors=True))
        assert fit(folder) == 2
    assert "was replaced, moved or emptied" in capsys.readouterr().err


def test_a_folder_that_goes_between_epochs_is_an_error(tmp_path):
    pair, x = learnable(), drawn(rotated(), 20)

    def weight(step):
        if step == 3:
            (tmp_path / "run").rename(tmp_path / "elsewhere")
        return 1.0

    with pytest.raises(FileNotFoundError, match="while training"):
        train_pair(pair, x, epochs=6, batch_size=20, kl_weight=weight, out=tmp_path / "run",
                   progress=False)  # fmt: skip
    assert not (tmp_path / "run").exists()
