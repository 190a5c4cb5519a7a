"""What the tests of the command line share."""

import csv

import pytest
import torch

from bayesvae.cli import main

SMALL = ["--quiet", "--epochs", "1", "--particles", "50", "--evaluate", "20"]
SMALL += ["--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--latent", "3"]
QUICK = ["--quiet", "--limit", "12", "--particles", "5", "--evidence-particles", "10"]


@pytest.fixture(autouse=True, scope="module")
def _float64_and_seed():
    """In place of the fixture of that name: a user's process has torch's default, float32."""
    assert torch.get_default_dtype() is torch.float32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert fit(folder) == 0
    return folder


def fit(folder, *words):
    return main(["fit", *SMALL, "--out", str(folder), *words])


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copied(run, folder):
    for path, content in contents(run).items():
        copy = folder / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return folder


def table(path):
    """The lines of a CSV file by column."""
    return list(csv.DictReader(path.read_text().splitlines()))
