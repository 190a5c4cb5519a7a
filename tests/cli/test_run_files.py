"""Of a run folder only what commands wrote is replaced, whatever the user's files are called."""

from contextlib import suppress

import pytest
from commands import contents
from run_folders import FINISHED, USERS, WRITTEN, made, of_text, run_of, write

from bayesvae.cli import runs
from bayesvae.cli.locks import locked
from bayesvae.cli.run_folder import identity, listing, results, settle
from bayesvae.core import files


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


def test_hidden_files_of_the_users_stay(tmp_path):
    folder = run_of(tmp_path / "run")
    mine = {".notes.2024999.txt": "a", ".b.20240101": "b", "figures/.c.99999999.png": "c"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    made(folder, "new", overwrite=True)
    with locked(folder):
        settle(folder, print)
    assert all((folder / name).read_text() == text for name, text in mine.items())
