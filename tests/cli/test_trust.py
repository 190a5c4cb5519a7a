"""What a run or a file of options from others cannot make the program do without ``--trust``."""

import json
import pickle
import sys

import pytest
import torch
import yaml
from commands import QUICK, copied, fit

from bayesvae.cli import main, parse
from bayesvae.cli.arguments import fit_parser
from bayesvae.cli.main import COMMANDS
from bayesvae.cli.parts import PARTS
from bayesvae.cli.trust import NAMES, OWN, PLAIN, refuse_foreign

STRANGE = """
from pathlib import Path
from torch.nn import ReLU
from bayesvae.priors import StandardNormal as Prior
Path(__file__).with_name("imported").touch()
"""
NAMED = {"class_path": "strange.Prior", "init_args": {}}


@pytest.fixture
def place(run, tmp_path, monkeypatch):
    """A current folder with a run and a module that says when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "strange.py").write_text(STRANGE)
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump({"prior": NAMED}))
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(NAMED))
    copied(run, tmp_path / "run")
    yield tmp_path
    sys.modules.pop("strange", None)


def swapped(*keys, value):
    """Puts a value into a configuration."""

    def swap(config):
        at = config
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value

    return swap


WAYS = {
    "a class": swapped("prior", value=NAMED),
    "a class as JSON": swapped("prior", value=json.dumps(NAMED)),
    "a class as YAML": swapped("prior", value="class_path: strange.Prior"),
    "a class by its path alone": swapped("prior", value="strange.Prior"),
    "a file for a part": swapped("prior", value="part.yaml"),
    "a file for a part, absolute": swapped("likelihood", value="/tmp/part.yaml"),
    "a further file": swapped("config", value="inner.yaml"),
    "a dotted key": swapped("prior.class_path", value="strange.Prior"),
    "a pair": swapped("pair", value=NAMED),
    "an activation": swapped("encoder", "init_args", "activation", value="strange.ReLU"),
    "an activation as class": swapped(
        "decoder", "init_args", "activation", value={"class_path": "strange.ReLU"}
    ),
    "an activation as JSON": swapped(
        "encoder", "init_args", "activation", value='{"class_path": "strange.ReLU"}'
    ),
    "an inner class": swapped("likelihood", "init_args", value={"scale": NAMED}),
    "a list with one": swapped("encoder", "init_args", "hidden", value=[16, "strange.Prior"]),
    "other arguments": swapped("prior", "dict_kwargs", value={"a": "strange.Prior"}),
    "a way through a module": swapped(
        "prior", "class_path", value="bayesvae.cli.parts.importlib.Prior"
    ),
    "a way through the package": swapped("prior", "class_path", value="bayesvae.strange.Prior"),
    "torch beside its networks": swapped("prior", "class_path", value="torch.hub.Prior"),
    "a builtin": swapped("encoder", "init_args", "activation", value="builtins.exit"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", [["sample", "run"], ["fit", "--config", "run/config.yaml"]])
def test_nothing_in_a_file_of_options_is_imported_without_trust(way, words, place, capsys):
    config = place / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    WAYS[way](content)
    config.write_text(yaml.safe_dump(content))
    out = ["--out", "new"] if words[0] == "fit" else []
    assert main([*words, *out, "--quiet"]) == 2
    error = capsys.readouterr().err
    # Some of these are no options at all, trusted or not, and `fit` says that first.
    assert "--trust" in error or words[0] == "fit"
    assert error.count("\n") == 1
    assert not (place / "imported").exists()
    assert "strange" not in sys.modules
    assert not (place / "new").exists()


def test_what_is_trusted_is_imported(place):
    """Without this the test above could pass for want of anything to import."""
    config = place / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    WAYS["a class"](content)
    config.write_text(yaml.safe_dump(content))
    assert main(["compare", "run", *QUICK, "--trust"]) == 0
    assert (place / "imported").exists()


@pytest.mark.parametrize("option", ["--conf", "--con"])
def test_an_option_cut_short_is_no_way_around(option, place, capsys):
    assert main(["fit", option, "inner.yaml", "--quiet"]) == 2
    assert not (place / "imported").exists()


@pytest.mark.parametrize("value", [["strange.Prior"], "strange.Prior", ["Normal", "strange.A"]])
def test_families_of_a_file_are_not_imported_without_trust(value, place, capsys):
    (place / "options.yaml").write_text(yaml.safe_dump({"families": value}))
    assert main(["compare", "run", "--config", "options.yaml", *QUICK]) == 2
    error = capsys.readouterr().err
    assert "--trust" in error or "needs a list" in error
    assert not (place / "imported").exists()


@pytest.mark.parametrize("content", [{"trust": True}, {"run": "other"}, {"seed": [[1]]}])
@pytest.mark.parametrize("command", ["fit", "compare", "evaluate", "sample", "bracket"])
def test_nobody_else_says_whom_to_trust(content, command, place, capsys):
    (place / "options.yaml").write_text(yaml.safe_dump(content))
    run = [] if command == "fit" else ["run"]
    assert main([command, *run, "--config", "options.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_option_is_refused_in_files_until_it_is_allowed(tmp_path):
    """Catches an option that is added to a command and that a file could use at once."""
    path = tmp_path / "options.yaml"
    path.write_text("later: strange.Prior")
    with pytest.raises(ValueError, match="names later"):
        refuse_foreign(path, trust=False)
    refuse_foreign(path, trust=True)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "list"])
def test_what_a_file_may_say_are_options_that_there_are(command):
    options = {a.dest for a in COMMANDS[command].parser()._actions if "." not in a.dest}
    elsewhere = {"help", "config", "print_config", "run", "trust", *PARTS}
    assert options - elsewhere <= PLAIN | NAMES | set(OWN), "decide for the new option"


@pytest.mark.parametrize("own", [{"out": "precious"}, {"overwrite": True}, {"data": "usps"}])
def test_where_to_write_and_what_to_read_is_the_users_to_say(own, place, capsys):
    (place / "precious").mkdir()
    (place / "precious" / "text").write_text("dear")
    (place / "options.yaml").write_text(yaml.safe_dump(own | {"epochs": 1}))
    (option,) = own
    assert main(["fit", "--config", "options.yaml", "--quiet"]) == 2
    assert f"--{option}, which is yours to say" in capsys.readouterr().err
    assert [path.name for path in (place / "precious").iterdir()] == ["text"]


@pytest.mark.parametrize("first", [True, False])
def test_what_the_user_says_stands_whatever_a_file_says_of_it(first, place):
    """Also where the file comes later on the command line."""
    own = {"out": "theirs", "data": "usps", "overwrite": True, "epochs": 1, "particles": 7}
    (place / "options.yaml").write_text(yaml.safe_dump(own))
    said = ["--out", "mine", "--data", "digits", "--overwrite"]
    file = ["--config", "options.yaml"] if first else ["--config=options.yaml"]
    words = [*file, *said] if first else [*said, *file]
    found = parse.parse(fit_parser(), words)
    assert (found.out, found.data, found.overwrite) == ("mine", "digits", True)
    assert (found.epochs, found.particles) == (1, 7)


def test_a_run_of_others_does_not_reach_the_network(place, monkeypatch, capsys):
    config = place / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(content | {"data": "usps", "data_root": str(place)}))
    monkeypatch.setattr("bayesvae.data.vision._download", lambda *_: pytest.fail("asked"))
    assert main(["compare", "run", *QUICK]) == 2
    assert "may not ask the network" in capsys.readouterr().err


def test_help_reads_no_file(place):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", "inner.yaml", "--help"])
    assert not (place / "imported").exists()


def test_what_fit_writes_needs_no_trust(tmp_path):
    """Catches a list of own classes that is too short."""
    words = [
        "--prior",
        "Mixture",
        "--prior.family",
        "MultivariateNormal",
        "--likelihood",
        "Normal",
    ]
    words += ["--encoder.activation", "torch.nn.Tanh", "--likelihood.scale", "0.3"]
    assert fit(tmp_path / "run", *words) == 0
    assert main(["sample", str(tmp_path / "run"), "--quiet", "--show", "draws"]) == 0


class Trap:
    def __reduce__(self):
        return (open, ("imported", "w"))


@pytest.mark.parametrize("content", ["pickle", "torch", "key"])
def test_a_checkpoint_is_not_unpickled(content, place, capsys):
    path = place / "run" / "best.pt"
    if content == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    elif content == "torch":
        torch.save({"x": Trap()}, path)
    else:
        torch.save({1: torch.zeros(2)}, path)
    assert main(["sample", "run", "--quiet"]) == 2
    assert "best.pt" in capsys.readouterr().err
    assert not (place / "imported").exists()


FACTS = {
    "event": [3, "abc", None, [], [-1], [1.5], ["a"], [2**50]],
    "size": [0, -3, "x", None, 10**30, True],
    "low": ["a", None],
    "loc": [3, [1], "a"],
    "scale": [[0] * 64, [1], 3],
    "names": [None, [1]],
    "label_names": [[1], 3],
    "source": [3],
    "levels": ["x"],
}
CASES = [(name, value) for name, values in FACTS.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_facts_of_another_kind_are_named(name, value, place, capsys):
    path = place / "run" / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert main(["sample", "run", "--quiet", "--show", "draws"]) == 2
    error = capsys.readouterr().err
    assert "data.json needs" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", ["3", "null", "[]", '"a"'])
def test_a_summary_that_is_no_object_is_named_before_any_work(content, place, capsys):
    (place / "run" / "summary.json").write_text(content)
    assert main(["compare", "run", *QUICK]) == 2
    assert "summary.json needs entries by name" in capsys.readouterr().err
    assert not (place / "run" / "gaps.csv").exists()


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("there", [{"prior": NAMED}, {"out": "stolen"}])
def test_no_file_is_read_by_the_name_that_options_make_as_text(joined, there, place):
    """A parser that is handed options as text looks for a file of that name first."""
    options = {"epochs": 3, "seed": 2}
    (place / "options.yaml").write_text(yaml.safe_dump(options))
    for text in (json.dumps(options), yaml.safe_dump(options), yaml.safe_dump(options).strip()):
        (place / text).write_text(yaml.safe_dump(there))
    file = ["--config=options.yaml"] if joined else ["--config", "options.yaml"]
    found = parse.parse(fit_parser(), file)
    assert (found.epochs, found.out) == (3, "runs/latest")
    assert not (place / "imported").exists()
