"""A user's own classes on the command line: found, shown, trained, kept, and rebuilt on trust."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import QUICK, contents, fit

from bayesvae.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "command-line.md").read_text()
PRIOR = next(
    block
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    if "class MyPrior" in block
)
"""The prior that the documentation shows."""

PAIR = '''
import pyro
import pyro.distributions as dist
import torch


class Factors(torch.nn.Module):
    """Factor analysis."""

    def __init__(self, event, latent, width: int = 7):
        super().__init__()
        self.decoder = torch.nn.Linear(latent, event[0])
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(event[0], width), torch.nn.Tanh(), torch.nn.Linear(width, 2 * latent)
        )

    def model(self, x):
        with pyro.plate("data", len(x)):
            loc = x.new_zeros(len(x), self.decoder.in_features)
            z = pyro.sample("factors", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("factors", dist.Normal(loc, raw.exp()).to_event(1))
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A current folder with a user's modules in it, forgotten afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my_priors.py").write_text(PRIOR)
    (folder / "my_pairs.py").write_text(PAIR)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    forget()


def forget():
    for name in ("my_priors", "my_pairs", "strange"):
        sys.modules.pop(name, None)


def test_a_prior_of_a_few_lines_works_reloads_and_is_compared(mine, capsys):
    """As one would: a file in the current folder, no installation; then the folder moves."""
    assert len(PRIOR.strip().splitlines()) < 15
    assert fit("run", "--prior", "my_priors.MyPrior", "--prior.df", "3") == 0
    (mine / "my_priors.py").unlink()
    assert main(["compare", "run", *QUICK]) == 2
    assert "my_priors.MyPrior" in capsys.readouterr().err
    forget()
    assert main(["compare", "run", *QUICK, "--trust"]) == 0, capsys.readouterr().err
    assert "amortization gap" in capsys.readouterr().out
    assert (mine / "run" / "code" / "my_priors.py").read_text() == PRIOR
    assert main(["sample", "run", "--quiet", "--trust", "--show", "draws"]) == 0


def test_the_program_finds_the_current_folder_by_itself(mine):
    """Catches a lookup that only works because the tests' process has the folder on its path."""
    words = ["fit", "--prior", "my_priors.MyPrior", "--epochs", "1", "--quiet", "--out", "run"]
    starter = "import sys; sys.path.remove(''); from bayesvae.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", starter, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (mine / "run" / "best.pt").is_file()


def test_a_pair_written_by_hand_is_trained_and_taken_apart(mine, capsys):
    words = ["--data", "ppca", "--pair", "my_pairs.Factors", "--pair.width", "5", "--latent", "2"]
    assert fit("run", *words) == 0, capsys.readouterr().err
    assert main(["compare", "run", *QUICK, "--trust"]) == 0, capsys.readouterr().err
    assert main(["sample", "run", "--quiet", "--trust"]) == 0, capsys.readouterr().err
    assert (mine / "run" / "samples" / "posteriors.png").is_file()


def test_help_shows_a_users_class_with_its_arguments(mine, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--prior", "my_priors.MyPrior", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "my_priors.MyPrior A Student-t: a standard normal with heavy tails." in text
    assert "--prior.df (default: 4.0)" in text


def test_a_run_without_classes_of_others_keeps_no_code(run):
    assert not [path for path in contents(run) if path.suffix == ".py"]
