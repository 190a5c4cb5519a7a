"""Runs with files of a user beside their own, for the tests of what becomes of both."""

from bayesvae.cli import runs
from bayesvae.core import files

WRITTEN = ("config.yaml", "data.json", "metrics.csv", "last.pt", "best.pt")


FINISHED = ("summary.json", "figures/training_curve.png")


USERS = {
    "notes.txt": "mine",
    "figures/paper.pdf": "paper",
    "code/main.py": "code",
    "deep/er/a": "a",
}


def write(folder, names, text):
    for name in names:
        files.write_aside(folder / name, lambda aside: aside.write_text(text))


def made(folder, text, *, overwrite=False, until=(*WRITTEN, *FINISHED)):
    """What ``fit`` does to its folder."""
    with runs.claimed(str(folder), overwrite) as run:
        write(run, until, text)


def run_of(folder):
    """A run with files of the user's beside its own."""
    made(folder, "earlier")
    for name, text in USERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def of_text(folder, text, names):
    return all((folder / n).is_file() and (folder / n).read_text() == text for n in names)
