"""What the tests of the command line share."""

import csv

from bayesvae.cli import main

SMALL = ["--quiet", "--epochs", "1", "--particles", "50", "--evaluate", "20"]
SMALL += ["--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--latent", "3"]
QUICK = ["--quiet", "--limit", "12", "--particles", "5", "--evidence-particles", "10"]


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


def told(capsys):
    """The one line of a mistake."""
    error = capsys.readouterr().err
    assert error.startswith("bayesvae: ")
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    assert "Parser key" not in error
    return error
