"""Options, their values and files of options: a wrong one is named in the program's own words."""

import importlib
import warnings

import pytest
import yaml
from commands import SMALL, contents, told

from bayesvae.cli import main, parse
from bayesvae.cli.arguments import fit_parser
from bayesvae.cli.mistakes import answer

JARGON = ("NoneType", "object", "class '", "Namespace", "subclass", "validate", "ignored", "union")
"""What only who knows Python or its libraries understands."""

WORDS = {
    "flag with a value": (["--overwrite=yes"], "--overwrite takes no value; got 'yes'"),
    "help with a value": (["--help=1"], "--help takes no value; got '1'"),
    "printing with a value": (["--print_config=x"], "--print_config takes no value; got 'x'"),
    "empty file name": (["--config", ""], "--config needs a text, not empty"),
    "empty folder": (["--out="], "--out needs a text, not empty"),
    "null byte": (["--out", "x\0y"], "--out needs a text, not empty and without null bytes"),
    "loose word": (["digits"], "`bayesvae fit` takes no words besides its options; got 'digits'"),
    "misspelt option": (["--epoch", "3"], "got --epoch 3. Did you mean --epochs?"),
    "part's option alone": (["--encoder.hidden"], "--encoder.hidden needs one value; got none"),
    "misspelt choice": (["--binarise", "dinamic"], "got 'dinamic'. Did you mean dynamic?"),
    "misspelt part": (["--prior", "vamp"], "got 'vamp'. Did you mean Vamp?"),
    "misspelt argument": (
        ["--prior", "Mixture", "--prior.component", "3"],
        "got --prior.component. Did you mean --prior.components?",
    ),
    "misspelt data set": (["--data", "MNIST"], "there is none at MNIST. Did you mean mnist?"),
    "float for a count": (["--epochs=1e3"], "--epochs needs a whole number above 0; got '1e3'"),
    "null for data": (["--data", "null"], "--data needs a text; got null"),
    "infinite divisor": (["--data", "rows.npy", "--divide", "inf"], "--divide needs a finite"),
    "negative width": (["--encoder.hidden", "[-3]"], "widths of at least 1; got [-3]"),
    "width of zero": (["--encoder.hidden", "[0]"], "widths of at least 1; got [0]"),
    "channels": (
        ["--decoder", "ConvDecoder", "--decoder.channels", "[0]"],
        "channels of at least 1; got [0]",
    ),
    "number for a list": (["--encoder.hidden", "9"], "needs a list of whole numbers such as"),
    "too many latents": (["--latent", "100000000"], "Use fewer or smaller --latent"),
    "too many levels": (["--levels", "1000000000"], "more memory than there is"),
    "no such activation": (
        ["--encoder.activation", "Tanhh"],
        "such as torch.nn.Tanh; got 'Tanhh'",
    ),
    "number for one": (["--encoder.activation", "3"], "such as torch.nn.Tanh; got '3'"),
    "function for one": (["--encoder.activation", "torch.tanh"], "got 'torch.tanh'"),
    "layer for one": (["--encoder.activation", "torch.nn.Linear"], "got 'torch.nn.Linear'"),
    "scale": (
        ["--likelihood", "Normal", "--likelihood.scale", "abc"],
        "--likelihood.scale needs a number or a class by its import path; got 'abc'",
    ),
    "no scale": (["--likelihood", "Normal", "--likelihood.scale", "nan"], "got 'nan'"),
    "argument of an open part": (
        ["--likelihood.scale", "1"],
        "--likelihood.scale belongs to a class; got none. Name it by --likelihood first",
    ),
    "class that is not there": (["--prior", "bayesvae.priors.Nope"], "--prior takes one of Mix"),
    "module that is not there": (["--prior", "bayesvae.nope.Nope"], "--prior takes one of Mix"),
    "torch's that is not there": (["--prior", "torch.nope.X"], "--prior takes one of Mix"),
    "class of another part": (["--prior", "bayesvae.likelihoods.Normal"], "one of Mixture"),
    "network as prior": (["--prior", "torch.nn.Linear"], "--prior takes one of Mixture"),
    "network as family": (["--family", "torch.nn.Module"], "--family takes one of Flow"),
    "network as guide": (["--guide", "torch.nn.ReLU"], "--guide takes one of Amortized"),
    "network without its sizes": (
        ["--encoder", "torch.nn.Linear"],
        "--encoder Linear needs --encoder.in_features, --encoder.out_features; got no such",
    ),
    "supplied argument": (
        ["--prior", "Vamp", "--prior.constraint", "real"],
        "--prior Vamp takes one of --prior.components; got --prior.constraint",
    ),
    **{
        f"device {name}": (["--device", name], f"where they are there; got {name}. Use cpu.")
        for name in ("meta", "mps", "xla", "vulkan", "hpu", "cuda:99", "abacus", "3")
    },
    "columns of rows": (["--data", "rows.npy", "--columns", "a"], "--columns says nothing about"),
    "text column": (["--data", "words.csv"], "line 9"),
    "which array": (["--data", "two.npz"], "--array NAME"),
    "image sizes": (["--data", "sizes"], "--image-size 8 8"),
    "sizes of images": (["--data", "sizes", "--columns", "a"], "takes --image-size, --grey."),
}


@pytest.mark.parametrize("mistake", WORDS)
def test_a_wrong_word_is_named_with_its_rule_and_without_jargon(mistake, place, capsys):
    words, phrase = WORDS[mistake]
    before = contents(place)
    assert main(["fit", *words, "--quiet"]) == 2
    error = told(capsys)
    assert phrase in error
    assert [word for word in JARGON if word in error] == []
    assert contents(place) == before


FILES = {
    "latent: []": "--latent needs a list, each entry a whole number above 0; got []",
    "latent: 3": "--latent needs a list, each entry a whole number above 0; got 3",
    "latent: eight": "got 'eight'",
    "latent: [eight]": "--latent needs a whole number above 0; got ['eight']",
    "latent: &a [*a]": "--latent needs a list, each entry a whole number above 0",
    "columns: a": "--columns needs a list, each entry a text; got 'a'",
    "prior: null": "--prior needs an import path, or `class_path: mymodule.MyClass`",
    "guide: null": "--guide needs an import path",
    "prior: 3": "--prior needs an import path",
    "prior: {class_path: bayesvae.priors.Mixture, init_args: 3}": "--prior needs an import path",
    "prior: {class_path: bayesvae.likelihoods.Normal}": "--prior takes one of Mixture",
    "prior: {class_path: bayesvae.priors.Mixture, init_args: {components: x}}": (
        "--prior.components needs a whole number; got 'x'"
    ),
    "encoder: {class_path: bayesvae.networks.MLP, init_args: {hidden: null}}": (
        "--encoder.hidden needs a list of whole numbers such as '[200,100]'; got null"
    ),
    "out: null": "--out needs a text; got null",
    "data: null": "--data needs a text; got null",
    "seed: null": "--seed needs a whole number from 0 to 2^63 - 1; got null",
    "device: 3": "--device needs a text; got 3",
    "grey: maybe": "--grey needs true or false; got 'maybe'",
    "binarise: dinamic": "--binarise needs one of none, static, dynamic; got 'dinamic'",
    "learning_rate: .inf": "--learning-rate needs a finite number; got inf",
    "learning_rat: 1": "got 'learning_rat'. Did you mean learning_rate?",
    "config: other.yaml": "got 'config'",
    "3: 4": "options as `name: value`",
    "latent: " + 3000 * "[" + 3000 * "]": "is not readable YAML",
}


@pytest.mark.parametrize("content", FILES)
def test_a_wrong_entry_in_a_file_of_options_is_named(content, place, capsys):
    (place / "options.yaml").write_text(content)
    before = contents(place)
    assert main(["fit", "--config", "options.yaml"]) == 2
    error = told(capsys)
    assert FILES[content] in error
    assert [word for word in JARGON if word in error] == []
    assert contents(place) == before


COMMANDS = {
    "fti": "got 'fti'. Did you mean fit?",
    "Compare RUN": "got 'Compare'. Did you mean compare?",
    "list Priors": "got Priors. Did you mean priors?",
    "compare": "`bayesvae compare` needs RUN, the run folder; got none",
    "compare RUN RUN": "takes one word besides its options",
    "sample RUN --count 1000000000000": "Use fewer or smaller --count or --steps",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_command_is_named(line, run, place, capsys):
    assert main([str(run) if word == "RUN" else word for word in line.split()]) == 2
    assert COMMANDS[line] in told(capsys)


def test_a_class_on_the_command_line_stands_in_for_that_of_a_file_with_its_arguments(place):
    """Catches arguments of the file's class that are asked of the other."""
    mixture = {"class_path": "bayesvae.priors.Mixture", "init_args": {"components": 3}}
    (place / "options.yaml").write_text(yaml.safe_dump({"prior": mixture, "latent": [2]}))
    words = ["--config", "options.yaml", "--prior", "bayesvae.priors.StandardNormal"]
    found = parse.parse(fit_parser(), words)
    assert found.prior.class_path == "bayesvae.priors.StandardNormal"
    assert found.latent == [2]


def test_negative_numbers_are_values_and_not_options():
    with pytest.raises(ValueError, match=r"--seed needs a whole number from 0 .*; got '-1'"):
        parse.parse(fit_parser(), ["--seed", "-1"])


def test_a_fault_of_the_program_is_one_line_with_its_place_and_exit_code_1(
    place, capsys, monkeypatch
):
    monkeypatch.setattr("bayesvae.cli.train.prepare", lambda *_: None)
    assert main(["fit", *SMALL]) == 1
    error = told(capsys)
    assert "A fault of the program, not of the input: AttributeError: 'NoneType'" in error
    assert "bayesvae/cli/train.py, line " in error
    monkeypatch.setenv("BAYESVAE_TRACEBACK", "1")
    assert main(["fit", *SMALL]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (MemoryError(), "This needs more memory than there is.", 2),
        (TypeError("f() missing 1 argument"), "A fault of the program", 1),
        (RuntimeError("shapes cannot be multiplied"), "A fault of the program", 1),
        (RecursionError("maximum depth"), "A fault of the program", 1),
        (ValueError("X needs image_size=(3, 4)"), "X needs --image-size 3 4", 2),
        (
            ValueError("Leave labels= out, or use test=0."),
            "Leave --labels out, or use --test 0.",
            2,
        ),
        (ValueError("clip_norm needs a number"), "--clip-norm needs a number", 2),
        (
            ValueError("labels says nothing about labels.npy"),
            "--labels says nothing about labels.",
            2,
        ),
        (
            ValueError(
                "These are grey levels: binarise them (data.static_binarisation, or "
                "data.Loader(..., transform=data.dynamic_binarisation)) or use likelihoods.Normal."
            ),
            "These are grey levels: use --binarise static or dynamic, or --likelihood Normal.",
            2,
        ),
        (ValueError("Give it p=0.2 or latest=3"), "Give it p=0.2 or latest=3", 2),
    ],
)
def test_errors_of_the_library_are_told_as_options(error, text, code):
    """Catches a keyword that a shell does not have, and words that only look like one."""
    said, exit_code = answer(error, "fit")
    assert text in said
    assert exit_code == code


def test_a_warning_is_one_line_without_the_code_that_gave_it(monkeypatch, capsys):
    def warn(options):
        warnings.warn("the sky is falling", UserWarning, stacklevel=1)

    commands = importlib.import_module("bayesvae.cli.main").COMMANDS
    monkeypatch.setitem(commands, "list", commands["list"]._replace(run=warn))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["list"]) == 0
    assert capsys.readouterr().err == "bayesvae: the sky is falling\n"
