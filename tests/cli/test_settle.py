"""What is left open is settled by the kind of the data, and said aloud."""

import numpy as np
import pytest
import yaml
from commands import fit

from bayesvae.cli import main

RANDOM = np.random.default_rng(0)
KINDS = {
    "bits": (RANDOM.random((60, 5)).round(), "Bernoulli", "none", False),
    "grey": (np.clip(RANDOM.normal(0.5, 1, (60, 5)), 0, 1), "Bernoulli", "dynamic", False),
    "photographs": (RANDOM.random((60, 1, 4, 4)), "Normal", "none", False),
    "shares": (RANDOM.random((60, 5)), "Normal", "none", True),
    "counts": (RANDOM.poisson(3.0, (60, 5)), "Poisson", "none", False),
    "whole below zero": (RANDOM.poisson(3.0, (60, 5)) - 9, "Normal", "none", True),
    "reals": (RANDOM.normal(size=(60, 5)), "Normal", "none", True),
    "real images": (RANDOM.normal(size=(60, 1, 4, 4)), "Normal", "none", False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_data_settles_what_is_left_open(kind, tmp_path):
    x, likelihood, binarise, standardise = KINDS[kind]
    np.save(tmp_path / "x.npy", x.astype(float))
    words = ["--data", str(tmp_path / "x.npy"), "--steps", "2", "--latent", "2"]
    small = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--particles", "3"]
    assert fit(tmp_path / "run", *words, *small) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["likelihood"]["class_path"] == f"bayesvae.likelihoods.{likelihood}"
    assert (config["binarise"], config["standardise"]) == (binarise, standardise)


def test_what_was_found_and_chosen_is_said_aloud(tmp_path, capsys):
    np.save(tmp_path / "x.npy", KINDS["grey"][0])
    words = ["fit", "--data", str(tmp_path / "x.npy"), "--steps", "2", "--particles", "3"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "5 columns in [0, 1]" in said
    assert "strictly inside: grey" in said
    assert "so --likelihood Bernoulli --binarise dynamic (or choose --likelihood Normal)" in said
