"""What can be said on the command line, command by command."""

from typing import Any, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from bayesvae.cli.help import Parser
from bayesvae.cli.parts import PARTS
from bayesvae.compiler import When

Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**63)])
COMPILE: dict[str, When] = {"auto": "auto", "always": True, "never": False}
"""What ``--compile`` takes, and what the library calls it."""
BINARISATIONS = ("none", "static", "dynamic")
SHOWN = ("draws", "reconstructions", "interpolations", "traversals", "latent", "posteriors")
"""What ``bayesvae sample`` can make."""

_NETWORK = {"class_path": "bayesvae.networks.MLP", "init_args": {"hidden": [200]}}
_DEFAULTS = {
    "prior": {"class_path": "bayesvae.priors.StandardNormal"},
    "likelihood": None,
    "family": {"class_path": "bayesvae.families.Normal"},
    "guide": {"class_path": "bayesvae.guides.Amortized"},
    "encoder": _NETWORK,
    "decoder": _NETWORK,
    "pair": None,
}


def fit_parser() -> Parser:
    """The arguments of ``bayesvae fit``; they are also the contents of a run's ``config.yaml``."""
    parser = Parser(
        description="Train a latent-variable model and its guide on any data; write a run folder "
        "with checkpoints, metrics, a summary and pictures. Ctrl-C ends the training and keeps "
        "what there is.",
        epilog="Examples:\n"
        "  bayesvae fit --data mnist --prior Mixture --prior.components 20 --out runs/mixture\n"
        "  bayesvae fit --data wine.csv --labels quality --latent 2 --out runs/wine\n"
        "  bayesvae fit --data photos/ --image-size 32 --encoder ConvEncoder --decoder "
        "ConvDecoder\n"
        "  bayesvae fit --prior mymodule.MyPrior --prior.df 3    (mymodule.py in this folder)\n"
        "Lists of a part's argument are written as '[200,100]'. `bayesvae list` shows data sets "
        "and parts by name.",
    )
    _config_argument(parser)
    _data_arguments(parser)
    _pair_arguments(parser)
    _training_arguments(parser)
    _run_arguments(parser)
    return parser


def _config_argument(parser: Parser) -> None:
    parser.add_argument("--config", action="config", metavar="FILE", help="options as YAML")
    for action in parser._actions:
        if action.dest == "print_config":
            action.help, action.metavar = "print all options as YAML, and stop", ""


def _source_arguments(add: Any, default: str | None, what: str) -> None:
    add("--data", type=str | None, default=default, metavar="NAME|PATH", help=what)
    add("--array", type=str | None, metavar="NAME", help="array of an .npz or .pt with several")
    add(
        "--columns",
        type=str,
        nargs="+",
        metavar="NAME",
        help="columns of a table, by name or number from 0; else all but the labels",
    )
    add("--labels", type=str | None, metavar="NAME", help="column or array of class labels")
    add(
        "--image-size",
        type=PositiveInt,
        nargs="+",
        metavar="N",
        help="resize the images of a folder to N x N, or to the height and width given",
    )
    add("--grey", action="store_true", help="turn the colour images of a folder to grey")
    add("--divide", type=PositiveFloat | None, metavar="NUMBER", help="divide all values by this")
    add(
        "--data-root",
        type=str | None,
        metavar="FOLDER",
        help="where data sets lie by name; else BAYESVAE_DATA, else a cache folder",
    )


def _data_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("data").add_argument
    _source_arguments(
        add, "digits", "a data set of `bayesvae list`, or a .npy, .npz, .pt, .csv, image folder"
    )
    add(
        "--standardise",
        type=bool | None,
        metavar="true|false",
        help="bring each column to mean 0 and deviation 1 (default: for tables of real numbers)",
    )
    add(
        "--binarise",
        choices=BINARISATIONS,
        default=None,
        help="grey levels to bits: not, once, or afresh in each batch (default: dynamic for grey "
        "data under a Bernoulli likelihood)",
    )
    add("--levels", type=int | None, metavar="N", help="round grey levels to integers 0 ... N - 1")
    add("--test", type=Share, default=0.2, metavar="SHARE", help="share of a file kept unseen")
    add(
        "--validation", type=Share, default=0.1, metavar="SHARE", help="share of the rest held out"
    )


def _pair_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("pair").add_argument
    add(
        "--latent",
        type=PositiveInt,
        nargs="+",
        default=[8],
        metavar="N",
        help="latents of a datum; several numbers make layers, lowest first",
    )
    add(
        "--between",
        type=PositiveInt,
        nargs="*",
        default=[100],
        metavar="WIDTH",
        help="hidden widths between layers of latents",
    )
    for key, part in PARTS.items():
        parser.add_subclass_arguments(
            part.base,
            key,
            skip=set(part.supplied),
            default=_DEFAULTS[key],
            required=False,
            help=part.what,
        )


def _training_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("training").add_argument
    add(
        "--epochs",
        type=PositiveInt | None,
        metavar="N",
        help="passes over the data (default: what makes 5,000 steps, 20 unless that is very long)",
    )
    add("--steps", type=PositiveInt | None, metavar="N", help="stop after so many steps instead")
    add("--batch-size", type=PositiveInt, default=128, metavar="N", help="data in a step")
    add("--learning-rate", type=PositiveFloat, default=1e-3, metavar="X", help="step size of Adam")
    add(
        "--row-learning-rate",
        type=PositiveFloat,
        default=1e-2,
        metavar="X",
        help="step size for the rows of --guide PerDatapoint",
    )
    add(
        "--kl-weight",
        type=NonNegativeFloat,
        default=1.0,
        metavar="X",
        help="weight of the latents' terms in training; 1 gives the ELBO",
    )
    add(
        "--warmup",
        type=NonNegativeInt,
        default=0,
        metavar="N",
        help="steps over which that weight grows from 0",
    )
    add(
        "--inner-steps",
        type=NonNegativeInt,
        default=0,
        metavar="N",
        help="EM-like: steps of the guide before each of the model; 0 trains both at once",
    )
    add("--clip-norm", type=PositiveFloat | None, metavar="X", help="bound on the gradient's norm")
    compile_argument(add, "a run", "its steps")
    add("--bf16", action="store_true", help="multiply in bfloat16 inside of networks")


def compile_argument(add: Any, what: str, steps: str) -> None:
    """``--compile``, for a command that takes steps."""
    add(
        "--compile",
        type=Literal["auto", "always", "never"],
        default="auto",
        help=f"trace the pair once and compile {steps}: auto does in {what} that is long enough "
        f"to win the compiler's seconds back; never repeats {what} to the last digit",
    )


def _run_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("run").add_argument
    add(
        "--particles",
        type=PositiveInt,
        default=500,
        metavar="N",
        help="draws for each figure",
    )
    add(
        "--evaluate",
        type=PositiveInt,
        default=1000,
        metavar="N",
        help="data that the final figures are taken on, at most",
    )
    add("--out", type=str, default="runs/latest", metavar="FOLDER", help="the run folder")
    add("--overwrite", action="store_true", help="replace a run that is already there")
    _common_arguments(add)
    add("--trust", action="store_true", help="import the classes of others that --config names")


def _common_arguments(add: Any) -> None:
    add("--seed", type=Seed, default=0, metavar="N", help="of all random numbers")
    add("--device", type=str, default="cpu", metavar="NAME", help="where to compute, as cuda")
    add("--quiet", action="store_true", help="print results only: no progress, no remarks")


def rebuilding_parser(description: str, epilog: str) -> Parser:
    """A parser for a command that reads a run."""
    parser = Parser(description=description, epilog=epilog)
    add = parser.add_argument
    add("run", type=str, metavar="RUN", help="the run folder")
    _config_argument(parser)
    add(
        "--trust",
        action="store_true",
        help="import (and so run) classes from outside the package that the run names",
    )
    add("--overwrite", action="store_true", help="replace results that are already there")
    _common_arguments(add)
    return parser


def other_data_arguments(parser: Parser) -> None:
    """Options that name data for a run that are not its own."""
    _source_arguments(
        parser.add_argument_group("other data than the run's").add_argument,
        None,
        "all rows of a data set's unseen part, of a file or of an image folder",
    )


def sample_parser() -> Parser:
    """The arguments of ``bayesvae sample``."""
    parser = rebuilding_parser(
        "Draw from a run: new data, reconstructions, what lies between two data and along each "
        "latent, the latent space. Writes pictures (.png) and their arrays (.npz).",
        "Examples:\n  bayesvae sample runs/mixture --show draws --count 100\n"
        "  bayesvae sample runs/wine --data more-wine.csv",
    )
    add = parser.add_argument
    add(
        "--show",
        type=str,
        nargs="+",
        metavar="WHAT",
        help=f"any of {', '.join(SHOWN)} (default: all that the pair has)",
    )
    add("--count", type=PositiveInt, default=20, metavar="N", help="draws and reconstructions")
    add("--steps", type=PositiveInt, default=9, metavar="N", help="points along each path")
    add(
        "--out",
        type=str | None,
        metavar="FOLDER",
        help="where to write (default: samples/ in the run folder)",
    )
    other_data_arguments(parser)
    return parser


def list_parser() -> Parser:
    """The arguments of ``bayesvae list``."""
    parser = Parser(
        description="The data sets, priors, likelihoods, families, guides, networks and pairs "
        "that the package has by name, a line each.",
        epilog="Example:\n  bayesvae list priors",
    )
    parser.add_argument(
        "what", type=str | None, nargs="?", metavar="WHAT", help="one kind only, such as priors"
    )
    return parser
