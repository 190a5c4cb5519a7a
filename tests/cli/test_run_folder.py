"""A run folder is whole whatever ends the process that writes there, and at whatever call."""

import errno
import io
import itertools
import os
from contextlib import suppress

import pytest
from commands import contents
from run_folders import FINISHED, USERS, WRITTEN, made, of_text, run_of, write

from bayesvae.cli import runs
from bayesvae.cli.locks import locked
from bayesvae.cli.run_folder import identity, is_unsettled, results, settle


class Killed(BaseException):
    """The process is gone: nothing that it would still do is done."""


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


def test_the_folder_that_one_stands_in_is_not_replaced(tmp_path, monkeypatch):
    folder = run_of(tmp_path / "run")
    monkeypatch.chdir(folder / "deep")
    with pytest.raises(ValueError, match="is the one you are in"):
        made(folder, "new", overwrite=True)
    nothing_is_lost(folder)


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


def test_a_disk_that_is_full_at_once_leaves_the_run_where_it_is(tmp_path, monkeypatch):
    folder = run_of(tmp_path / "run")
    before = contents(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("bayesvae.cli.run_folder._mark", full)
    with pytest.raises(OSError, match="full"):
        made(folder, "new", overwrite=True)
    assert contents(folder) == before
