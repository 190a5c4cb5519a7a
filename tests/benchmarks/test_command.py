"""The command line of the benchmarks that have no parser of their own."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

NAMES = ("bf16", "brackets", "priors", "routes", "svi")


@pytest.fixture(autouse=True)
def _repository(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.mark.parametrize("name", NAMES)
def test_the_help_says_what_is_measured_how_it_is_called_and_what_each_option_is(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit, match="0"):
        module.command.run(module.main, ["--help"])
    said = capsys.readouterr().out
    assert module.__doc__.strip() in said
    assert f"usage: python -m benchmarks.{name} " in said
    assert "<function" not in said
    for option in inspect.signature(module.main).parameters:
        assert re.search(rf"\n  --{option.replace('_', '-')} \S+\s+[a-z]", said), option


def test_what_is_said_reaches_the_benchmark_in_its_types_and_the_rest_is_left_alone():
    from benchmarks import command

    def main(data_root: str | None = None, sizes: tuple[int, ...] = (1, 2), out: Path = Path("a")):
        """Keeps its arguments.

        Args:
            data_root: a folder.
            sizes: whole numbers.
            out: a folder.
        """
        kept.append((data_root, sizes, out))

    kept = []
    command.run(main, ["--data-root", "here", "--out", "there"])
    command.run(main, ["--sizes", "[3,4]"])
    assert kept == [("here", (1, 2), Path("there")), (None, (3, 4), Path("a"))]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_writes_into_a_folder(name):
    """Catches an --out that is a file in one and a folder in another."""
    module = importlib.import_module(f"benchmarks.{name}")
    assert inspect.signature(module.main).parameters["out"].default == Path("runs/benchmarks")
