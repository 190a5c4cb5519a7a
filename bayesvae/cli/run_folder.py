"""The folder of a run while something writes into it: one writer at a time, and nothing lost.

    runs/x                    the run; `run.json` marks it, and lists what commands wrote
    runs/.x.bayesvae-lock     held while a command writes there; a process that ended holds none
    runs/.x.bayesvae-new      a run folder about to appear
    runs/.x.bayesvae-earlier  what ``fit --overwrite`` replaces, until the new run has ended
    runs/.x.bayesvae-dropped  a run on its way out
    runs/x/.bayesvae-results  results of a command, complete, on the way to their places

Whatever replaces or removes does so by one rename of a whole folder, and `settle` can tell from
the names alone how far a process came that was killed, and goes on from there; it may be killed
itself.
Files that no command wrote are the user's: they stay with the run's name, whatever becomes of it.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bayesvae.cli.locks import locked
from bayesvae.core import files

FORMAT = 1
"""Of all that a run folder holds; a run of a later one is not read."""
MARK, RESULTS = "run.json", ".bayesvae-results"
_MARKS = ("config.yaml", "data.json")
"""What is written before there is any result."""
_ASIDE = re.compile(r"\..*\.(?P<process>\d+)\.bayesvae-aside(\.\w+)?")
Say = Callable[[str], None]


def hidden(run: Path, what: str) -> Path:
    """A neighbour of a run that stands for a state of it."""
    return run.with_name(f".{run.name}.bayesvae-{what}")


def is_marked(run: Path) -> bool:
    """Whether a folder is a run that knows its files."""
    return (run / MARK).is_file()


def own_files(run: Path) -> list[str]:
    """The files that commands wrote, relative to the run.

    Raises:
        ValueError: if the mark is damaged, or of a later version.
    """
    path = run / MARK
    try:
        content = json.loads(path.read_text())
        names, version = content["files"], content["format"]
        sound = isinstance(version, int) and all(isinstance(name, str) for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `bayesvae` wrote ({error}). Put it back.") from error
    if not sound:
        raise ValueError(f"{path} is not what `bayesvae` wrote. Put it back.")
    if version > FORMAT:
        raise ValueError(
            f"{run} is of format {version}; this version knows those up to {FORMAT}. Use the "
            "version that wrote it."
        )
    return [name for name in names if _is_inside(name)]


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and name != ""


def _is_within(run: Path, name: str) -> bool:
    """Whether a name leads to a place in the run, not through a link or a file in between."""
    folders = [run / each for each in Path(name).parents][:-1]
    return not any(each.is_symlink() or each.is_file() for each in folders)


def _require_within(run: Path, name: str) -> None:
    """Refuses a place that a link leads to.

    Raises:
        ValueError: if one of the folders above it is a link, or a file.
    """
    if not _is_within(run, name):
        raise ValueError(
            f"{run / name} cannot be written: a folder above it is a link or a file, which no "
            "command made. Move that away."
        )


def _mark(run: Path, names: list[str]) -> None:
    with files.unnoticed():
        files.save_json(run / MARK, {"format": FORMAT, "files": names})


@contextmanager
def listing(run: Path, given: Path | None = None) -> Iterator[None]:
    """Puts every file that is written into the run meanwhile on its list, before it is there.

    Args:
        run: the folder, links resolved.
        given: the same by the name that writers use.
    """
    known = own_files(run) if is_marked(run) else None
    given = Path(os.path.abspath(given or run))

    def note(path: Path) -> None:
        for base in (run, given):
            if base in path.absolute().parents:
                name = path.absolute().relative_to(base).as_posix()
                break
        else:
            return
        _require_within(run, name)
        if known is None:
            return
        path = run / name
        if name not in known:
            if path.exists():  # a file of the user's
                os.replace(path, _free(path))
            known.append(name)
            _mark(run, known)

    with files.noticed(note):
        yield


# Replacing a run --------------------------------------------------------------------------------


@contextmanager
def replacing(run: Path, say: Say, given: Path | None = None) -> Iterator[None]:
    """A new run in the place of an earlier one, or where there is none; under the lock.

    The earlier run is gone once the new one has ended (`has_ended`).  If the new one stops before
    its first checkpoint, the earlier one comes back; if it stops after that, both stay.
    """
    existed = run.exists()
    earlier = hidden(run, "earlier")
    earlier_run = is_marked(run) and not is_begun(run)
    if is_marked(run) and not earlier_run:  # of a process that was killed before it had any result
        _remove_own(run)
    new = hidden(run, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    _mark(new, [MARK])
    try:
        if earlier_run:
            os.replace(run, earlier)
        if run.exists():  # a folder with files of the user's alone
            shutil.copyfile(new / MARK, run / MARK)
            shutil.rmtree(new)
        else:
            os.replace(new, run)
        if earlier.exists():
            _carry(earlier, run)
        with listing(run, given):
            yield
    finally:
        settle(run, say)
        if not earlier_run and is_marked(run) and not has_checkpoint(run):
            _remove_own(run)
            if not existed and not any(run.iterdir()):
                run.rmdir()


def has_checkpoint(run: Path) -> bool:
    """Whether training left a state there."""
    return (run / "best.pt").is_file()


def is_begun(run: Path) -> bool:
    """Whether a run is one that was begun and came to nothing: it has no file with any result."""
    names = [name for name in own_files(run) if (run / name).exists()]
    return all(name in (MARK, *_MARKS) or name.startswith("code/") for name in names)


def has_ended(run: Path) -> bool:
    """Whether ``fit`` came to its end there, or was interrupted and told what it had."""
    return has_checkpoint(run) and (run / "summary.json").is_file()


def settle(run: Path, say: Say) -> None:
    """Goes on where a process stopped that was replacing a run, or putting results in place.

    Args:
        run: the folder; the caller holds its lock.
        say: told what became of an earlier run, if that is not what was to become of it.
    """
    earlier, dropped = hidden(run, "earlier"), hidden(run, "dropped")
    if earlier.is_dir():
        if not run.exists():
            os.replace(earlier, run)
        elif has_ended(run):
            _carry(earlier, run)
            _drop(earlier, dropped)
        elif is_marked(run) and not has_checkpoint(run):
            _carry(run, earlier)
            _drop(run, dropped)
            os.replace(earlier, run)
        else:
            beside = _free(run.with_name(f"{run.name}.earlier"))
            os.replace(earlier, beside)
            say(f"{run} was not finished; the run that it was to replace is {beside} now.")
    shutil.rmtree(dropped, ignore_errors=True)
    shutil.rmtree(hidden(run, "new"), ignore_errors=True)
    for staged in _abandoned(run):
        shutil.rmtree(staged, ignore_errors=True)
    if run.is_dir():
        _place(run)
        _clean(run)


def is_unsettled(run: Path) -> bool:
    """Whether there is anything for `settle` to do."""
    states = ("earlier", "dropped", "new")
    begun = any(hidden(run, what).exists() for what in states) or (run / RESULTS).exists()
    return begun or any(_abandoned(run))


def _abandoned(run: Path) -> Iterator[Path]:
    """Results that processes staged which ended before they were complete."""
    beginning = f".{run.name}.bayesvae-results."
    with suppress(OSError):
        for path in run.parent.iterdir():
            process = path.name.removeprefix(beginning)
            if process != path.name and process.isdigit() and not _is_alive(int(process)):
                yield path


def _drop(run: Path, dropped: Path) -> None:
    shutil.rmtree(dropped, ignore_errors=True)
    os.replace(run, dropped)


def _carry(source: Path, target: Path) -> None:
    """Moves the user's files of one run folder to another."""
    own = set(own_files(source))
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        is_file = path.is_symlink() or not path.is_dir()
        if (
            is_file
            and name not in own
            and not _is_left_over(path)
            and not name.startswith(f"{RESULTS}/")
        ):
            to = _free(target / name)
            to.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, to)


def _free(path: Path) -> Path:
    """The path, or with a number behind it if something is there."""
    found, number = path, 1
    while found.exists() or found.is_symlink():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _remove_own(run: Path) -> None:
    """Removes what commands wrote, the mark last."""
    own = [name for name in own_files(run) if name != MARK]
    for name in [name for name in (*own, MARK) if _is_within(run, name)]:
        (run / name).unlink(missing_ok=True)
        for folder in (run / name).parents:
            if folder == run:
                break
            with suppress(OSError):  # not empty
                folder.rmdir()


def _is_left_over(path: Path) -> bool:
    """Whether a file was on its way, aside, when the process that wrote it ended."""
    found = _ASIDE.fullmatch(path.name)
    return found is not None and not _is_alive(int(found["process"]))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _clean(run: Path) -> None:
    """Removes what processes that have ended had on its way aside."""
    names = own_files(run) if is_marked(run) else []
    own = {Path(name).parent for name in names if _is_within(run, name)}
    for folder in own:
        for path in (run / folder).glob(".*"):
            if path.is_file() and _is_left_over(path):
                path.unlink(missing_ok=True)


# Adding results ---------------------------------------------------------------------------------


def identity(run: Path) -> tuple[int, int]:
    """What tells a run folder from another one of its name."""
    found = run.stat()
    return found.st_dev, found.st_ino


@contextmanager
def results(run: Path, known: tuple[int, int]) -> Iterator[Path]:
    """A folder to fill, whose files all take their places in the run at the end, or none of them.

    Args:
        run: the run folder.
        known: its `identity` when the command began.

    Raises:
        ValueError: if the run has been replaced since.
    """
    require_same(run, known)
    staged = hidden(run, f"results.{os.getpid()}")
    if not os.access(run.parent, os.W_OK):
        staged = run / staged.name
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        with locked(run, while_waiting=lambda: require_same(run, known)):
            require_same(run, known)
            shutil.rmtree(run / RESULTS, ignore_errors=True)
            os.replace(staged, run / RESULTS)
            _place(run)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def require_same(run: Path, known: tuple[int, int]) -> None:
    """Refuses to write into a folder that is another than before.

    Raises:
        ValueError: if it is gone, or has been replaced.
    """
    if not run.is_dir() or identity(run) != known or not (run / "config.yaml").is_file():
        raise ValueError(
            f"{run} was replaced, moved or emptied while this was computed; nothing is written. "
            "Run it again."
        )


def _place(run: Path) -> None:
    """Moves complete results to their places."""
    folder = run / RESULTS
    if folder.is_symlink() or not folder.is_dir():
        return
    found = sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
    for path in found:
        _require_within(run, path.relative_to(folder).as_posix())
    with listing(run):
        for path in found:
            target = run / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            files.notice(target)
            os.replace(path, target)
    shutil.rmtree(folder)
