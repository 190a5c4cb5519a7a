"""One process writes into a run at a time, and what it wrote for another run goes nowhere."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import contents
from run_folders import FINISHED, USERS, WRITTEN, made, of_text, run_of, write

from bayesvae.cli.locks import locked
from bayesvae.cli.run_folder import identity, results

ROOT = Path(__file__).parents[2]


HOLDS = """
import sys, time
from bayesvae.cli.runs import claimed
with claimed(sys.argv[1], True) as run:
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder):
    """Another process that writes there, once it does."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDS, str(folder)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    folder = run_of(tmp_path / "run")
    process = holder(folder)
    try:
        with pytest.raises(ValueError, match=rf"process {process.pid}"):
            made(folder, "new", overwrite=True)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    made(folder, "new", overwrite=True)
    assert of_text(folder, "new", (*WRITTEN, *FINISHED))
    assert all((folder / name).read_text() == text for name, text in USERS.items())


def test_results_of_a_run_that_was_replaced_meanwhile_are_not_written(tmp_path):
    folder = run_of(tmp_path.resolve() / "run")
    known = identity(folder)
    made(folder, "new", overwrite=True)
    before = contents(folder)
    with pytest.raises(ValueError, match="nothing is written"), results(folder, known):
        pytest.fail("worked")

    def outlived():
        with results(folder, identity(folder)) as staged:
            write(staged, ["gaps.csv"], "late")
            made(folder, "newer", overwrite=True)

    with pytest.raises(ValueError, match="nothing is written"):
        outlived()
    assert set(contents(folder)) == set(before)
    assert list(tmp_path.glob(".run.*")) == []


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), ValueError("no"), KeyboardInterrupt()]
)
def test_what_ends_the_work_under_a_lock_is_passed_on(error, tmp_path):
    """Catches a lock that takes an error of the work for one of its own."""
    with pytest.raises(type(error)), locked(tmp_path / "run"):
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_to(number, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("bayesvae.cli.locks.fcntl.flock", unsupported)
    made(tmp_path / "run", "new")
    assert of_text(tmp_path / "run", "new", WRITTEN)
