"""A run folder is whole whatever ends the process that writes there, and at whatever call."""

import errno
import io
import itertools
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commands import contents

from bayesvae.cli import runs
from bayesvae.cli.locks import locked
from bayesvae.cli.run_folder import identity, is_unsettled, listing, results, settle
from bayesvae.core import files

ROOT = Path(__file__).parents[2]
WRITTEN = ("config.yaml", "data.json", "metrics.csv", "last.pt", "best.pt")
FINISHED = ("summary.json", "figures/training_curve.png")
USERS = {
    "notes.txt": "mine",
    "figures/paper.pdf": "paper",
    "code/main.py": "code",
    "deep/er/a": "a",
}


class Killed(BaseException):
    """The process is gone: nothing that it would still do is done."""


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


def killing(monkeypatch, number):
    """Kills the process at its call of that number that changes the disk; returns a counter."""
    count = itertools.count()

    def fatal(function, changes=lambda *_, **__: True):
        def call(*args, **kwargs):
            if changes(*args, **kwargs) and next(count) >= number:
                raise Killed
            return function(*args, **kwargs)

        return call

    for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "truncate"):
        monkeypatch.setattr(os, name, fatal(getattr(os, name)))

    def writes(file, mode="r", *_, **__):
        return any(letter in mode for letter in "wax+")

    monkeypatch.setattr(io, "open", fatal(io.open, writes))
    return count


def killed(monkeypatch, number, work):
    """Whether the process was killed before the work was done."""
    with monkeypatch.context() as patch:
        killing(patch, number)
        with suppress(Killed):
            work()
            return False
    return True


def of_text(folder, text, names):
    return all((folder / n).is_file() and (folder / n).read_text() == text for n in names)


def nothing_is_lost(folder):
    """The earlier run is whole somewhere, or the new one has ended; the user's files are there."""
    beside = [p for p in folder.parent.iterdir() if p.name.startswith(f"{folder.name}.earlier")]
    whole = (*WRITTEN, *FINISHED)
    earlier = any(of_text(place, "earlier", whole) for place in (folder, *beside))
    new = of_text(folder, "new", (*WRITTEN, "summary.json"))
    assert earlier or new
    assert (folder / "best.pt").is_file()
    for name, text in USERS.items():
        found = [p for place in (folder, *beside) if (p := place / name).is_file()]
        assert [path.read_text() for path in found] == [text], name


def calls(work, monkeypatch):
    """How many calls that change the disk some work makes."""
    with monkeypatch.context() as patch:
        count = killing(patch, 10**9)
        work()
    return next(count)


@pytest.mark.parametrize("until", [WRITTEN, WRITTEN[:3], (*WRITTEN, *FINISHED)])
def test_a_process_that_is_killed_while_it_replaces_a_run_loses_nothing(
    until, tmp_path, monkeypatch, capsys
):
    """At every call of the first process, and again at every call of the one that finds it."""

    def replace(folder):
        return lambda: made(folder, "new", overwrite=True, until=until)

    number = calls(replace(run_of(tmp_path / "count" / "run")), monkeypatch)
    assert number > 20
    for first in range(number):
        folder = run_of(tmp_path / str(first) / "run")
        assert killed(monkeypatch, first, replace(folder))
        for second in itertools.count():
            if not killed(monkeypatch, second, lambda at=folder: runs.finish_what_was_begun(at)):
                break
        runs.finish_what_was_begun(folder)
        nothing_is_lost(folder)
        assert not is_unsettled(folder.resolve())


def test_a_process_that_is_killed_while_it_adds_results_leaves_the_old_ones_or_all_new_ones(
    tmp_path, monkeypatch
):
    tables = ("gaps.csv", "gaps.txt", "summary.json", "figures/gaps.png")

    def add(folder, text="new"):
        with results(folder, identity(folder)) as staged:
            write(staged, tables, text)

    for number in itertools.count():
        folder = run_of((tmp_path / str(number)).resolve() / "run")
        add(folder, "old")
        done = not killed(monkeypatch, number, lambda at=folder: add(at))
        for again in itertools.count():
            if not killed(monkeypatch, again, lambda at=folder: runs.finish_what_was_begun(at)):
                break
        with locked(folder):
            settle(folder, print)
        assert {(folder / name).read_text() for name in tables} in ({"old"}, {"new"})
        assert of_text(folder, "earlier", WRITTEN)
        assert all((folder / name).read_text() == text for name, text in USERS.items())
        if done:
            break
    assert number > 8
    assert (folder / "gaps.csv").read_text() == "new"


def test_only_what_commands_wrote_is_replaced(tmp_path):
    """Catches files in a run's own folders that are taken for the run's."""
    folder = run_of(tmp_path / "run")
    made(folder, "new", overwrite=True)
    assert of_text(folder, "new", (*WRITTEN, *FINISHED))
    assert all((folder / name).read_text() == text for name, text in USERS.items())
    own = set(WRITTEN) | set(FINISHED) | {"run.json"}
    assert {p.relative_to(folder).as_posix() for p in contents(folder)} == own | set(USERS)


def test_a_file_of_the_users_with_the_name_of_a_new_one_is_kept_beside_it(tmp_path):
    folder = tmp_path / "run"
    made(folder, "earlier", until=(*WRITTEN, "summary.json"))
    (folder / "figures").mkdir()
    (folder / "figures" / "training_curve.png").write_text("mine")
    made(folder, "new", overwrite=True)
    texts = {p.name: p.read_text() for p in (folder / "figures").iterdir()}
    assert texts == {"training_curve.png": "new", "training_curve-2.png": "mine"}


@pytest.mark.parametrize("mark", [["config.yaml", "data.json"], ["config.yaml", "best.pt"]])
def test_a_folder_that_looks_like_a_run_and_carries_no_mark_is_not_replaced(mark, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in mark:
        (folder / name).write_text("mine")
    with pytest.raises(ValueError, match=r"run.json"):
        made(folder, "new", overwrite=True)
    assert {p.read_text() for p in folder.iterdir()} == {"mine"}


def test_the_run_that_was_to_be_replaced_stays_beside_one_that_broke_after_a_checkpoint(
    tmp_path, capsys
):
    """A full disk, say."""
    folder = run_of(tmp_path / "run")

    def breaks():
        with runs.claimed(str(folder), True) as run:
            write(run, WRITTEN, "new")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        breaks()
    assert of_text(folder, "new", WRITTEN)
    assert of_text(tmp_path / "run.earlier", "earlier", (*WRITTEN, *FINISHED))
    assert "run.earlier" in capsys.readouterr().err


def test_a_list_that_leads_out_of_the_run_removes_nothing_there(tmp_path):
    folder = run_of(tmp_path / "run")
    (tmp_path / "precious").write_text("dear")
    with listing(folder), files.unnoticed():
        files.save_json(
            folder / "run.json",
            {"format": 1, "files": ["../precious", str(tmp_path / "precious"), "run.json"]},
        )
    (folder / "best.pt").unlink()
    made(folder, "new", overwrite=True)
    assert (tmp_path / "precious").read_text() == "dear"


@pytest.mark.parametrize("content", ["3", "{}", '{"format": 2, "files": []}', "half"])
def test_a_mark_that_is_not_understood_is_named_before_anything_is_moved(content, tmp_path):
    folder = run_of(tmp_path / "run")
    (folder / "run.json").write_text(content)
    before = contents(folder)
    with pytest.raises(ValueError, match=r"run\.json|format 2"):
        made(folder, "new", overwrite=True)
    assert contents(folder) == before


def test_the_folder_that_one_stands_in_is_not_replaced(tmp_path, monkeypatch):
    folder = run_of(tmp_path / "run")
    monkeypatch.chdir(folder / "deep")
    with pytest.raises(ValueError, match="is the one you are in"):
        made(folder, "new", overwrite=True)
    nothing_is_lost(folder)


# One writer -------------------------------------------------------------------------------------


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


# Links and names of others -----------------------------------------------------------------------


def test_results_that_a_run_of_others_holds_are_not_placed_through_a_link(tmp_path):
    folder, home = run_of(tmp_path / "run"), tmp_path / "home"
    home.mkdir()
    (home / "keys").write_text("dear")
    (folder / "samples").symlink_to(home)
    (folder / ".bayesvae-results" / "samples").mkdir(parents=True)
    (folder / ".bayesvae-results" / "samples" / "keys").write_text("theirs")
    runs.finish_what_was_begun(folder)
    assert (home / "keys").read_text() == "dear"


def test_a_list_removes_nothing_through_a_link(tmp_path):
    folder, home = run_of(tmp_path / "run"), tmp_path / "home"
    home.mkdir()
    (home / "keys").write_text("dear")
    (folder / "samples").symlink_to(home)
    content = {"format": 1, "files": ["samples/keys", "run.json"]}
    files.save_json(folder / "run.json", content)
    (folder / "best.pt").unlink()
    with suppress(ValueError):
        made(folder, "new", overwrite=True)
    assert (home / "keys").read_text() == "dear"


def test_a_link_of_the_users_is_not_written_through(tmp_path):
    folder, paper = run_of(tmp_path / "run"), tmp_path / "paper"
    paper.mkdir()
    (paper / "gaps.png").write_text("mine")
    (folder / "plots").symlink_to(paper)

    def add():
        with results(folder.resolve(), identity(folder)) as staged:
            write(staged, ["gaps.csv", "plots/gaps.png"], "new")

    with pytest.raises(ValueError, match="a link or a file"):
        add()
    assert (paper / "gaps.png").read_text() == "mine"
    assert not (folder / "gaps.csv").exists(), "all or none"


def test_a_run_below_a_folder_of_any_name_keeps_the_users_files(tmp_path):
    folder = run_of(tmp_path / ".bayesvae-results" / "run")
    made(folder, "new", overwrite=True)
    assert all((folder / name).read_text() == text for name, text in USERS.items())


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_whose_checkpoint_did_not_come_along_is_still_a_run(overwrite, tmp_path):
    """As a repository leaves it that keeps no large files."""
    folder = run_of(tmp_path / "run")
    (folder / "best.pt").unlink()
    before = contents(folder)

    def breaks():
        with runs.claimed(str(folder), overwrite):
            raise OSError("no luck")

    with pytest.raises(OSError if overwrite else ValueError):
        breaks()
    assert contents(folder) == before


def test_hidden_files_of_the_users_stay(tmp_path):
    folder = run_of(tmp_path / "run")
    mine = {".notes.2024999.txt": "a", ".b.20240101": "b", "figures/.c.99999999.png": "c"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    made(folder, "new", overwrite=True)
    with locked(folder):
        settle(folder, print)
    assert all((folder / name).read_text() == text for name, text in mine.items())


def test_a_disk_that_is_full_at_once_leaves_the_run_where_it_is(tmp_path, monkeypatch):
    folder = run_of(tmp_path / "run")
    before = contents(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("bayesvae.cli.run_folder._mark", full)
    with pytest.raises(OSError, match="full"):
        made(folder, "new", overwrite=True)
    assert contents(folder) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_to(number, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("bayesvae.cli.locks.fcntl.flock", unsupported)
    made(tmp_path / "run", "new")
    assert of_text(tmp_path / "run", "new", WRITTEN)
