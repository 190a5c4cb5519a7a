"""What can be said to the commands that judge log p(x) and the guide of a run."""

from typing import Any

from jsonargparse.typing import PositiveInt

from bayesvae.cli.arguments import compile_argument, other_data_arguments, rebuilding_parser
from bayesvae.cli.estimators import PROPOSALS
from bayesvae.cli.help import Parser
from bayesvae.evidence import Annealing

_DRAWN = "data to draw from the run's model"


def _proposal_argument(add: Any, what: str) -> None:
    add("--proposal", choices=tuple(PROPOSALS), default="guide", help=what)


def annealing_arguments(add: Any, what: str) -> None:
    """A path that is walked if it is asked for, and its numbers."""
    add("--annealing", action="store_true", help=what)
    _path_arguments(add, stated=False)


def _path_arguments(add: Any, stated: bool) -> None:
    """The numbers of a path; without defaults where a path is not walked unless asked for."""
    usual = Annealing()
    words = {
        "temperatures": "steps from where the path begins to the posterior",
        "leapfrogs": "steps of the Hamiltonian move at each temperature",
        "chains": "annealed chains of each datum",
    }
    for name, what in words.items():
        default = getattr(usual, name)
        hint, given = (PositiveInt, default) if stated else (PositiveInt | None, None)
        what = what if stated else f"{what} (with --annealing; default: {default})"
        add(f"--{name}", type=hint, default=given, metavar="N", help=what)


def evaluate_parser() -> Parser:
    """The arguments of ``bayesvae evaluate``."""
    parser = rebuilding_parser(
        "The ELBO and log p(x) of a run, datum by datum and on average: on the data that the run "
        "kept unseen, on those it was trained on, or on any others of the same shape. Writes a "
        "CSV file with a line a datum. log p(x) is a lower bound in expectation; where k_hat is "
        "above 0.7 importance sampling has missed a part of the posterior: use a wider "
        "--proposal, or --annealing.",
        "Examples:\n  bayesvae evaluate runs/mixture --particles 5000\n"
        "  bayesvae evaluate runs/wine --data more-wine.csv --out more-wine-scores.csv\n"
        "  bayesvae evaluate runs/mixture --limit 100 --proposal mixture --out mixture.csv\n"
        "  bayesvae evaluate runs/mixture --limit 100 --annealing --chains 16 --out annealed.csv",
    )
    add = parser.add_argument
    add("--split", choices=("unseen", "train"), default="unseen", help="which of the run's data")
    add("--limit", type=PositiveInt | None, metavar="N", help="only the first N data")
    add("--particles", type=PositiveInt, default=500, metavar="N", help="draws for each datum")
    add(
        "--out",
        type=str | None,
        metavar="FILE",
        help="the CSV file (default: evaluations/ in the run folder)",
    )
    group = parser.add_argument_group("log p(x)").add_argument
    _proposal_argument(
        group,
        "what to draw from, or where the path begins: the run's own guide; its prior, which owes "
        "nothing to the guide; the best normal of full covariance for each datum; or a mixture "
        "of the three, which misses nothing that one of them covers",
    )
    annealing_arguments(group, "walk to the posterior instead of one leap")
    compile_argument(group, "an evaluation", "its densities")
    other_data_arguments(parser)
    return parser


def bracket_parser() -> Parser:
    """The arguments of ``bayesvae bracket``."""
    parser = rebuilding_parser(
        "Brackets log p(x): draws data from the run's model and estimates log p(x) of each from "
        "below, by chains that walk to the posterior, and from above, by chains that walk back "
        "from the very latents that made it. What lies between is how wrong either may be, in "
        "expectation, on data that the model believes in. Writes a table (CSV), its summary "
        "(JSON) and a picture.",
        "Examples:\n  bayesvae bracket runs/mixture --data-count 100\n"
        "  bayesvae bracket runs/mixture --temperatures 500 --proposal prior --out from-prior",
    )
    add = parser.add_argument
    add("--data-count", type=PositiveInt, default=100, metavar="N", help=_DRAWN)
    _proposal_argument(add, "where the path begins, as in `bayesvae evaluate`")
    _path_arguments(add, stated=True)
    compile_argument(add, "a bracket", "its gradients")
    _folder_argument(add, "bracket/")
    return parser


def calibrate_parser() -> Parser:
    """The arguments of ``bayesvae calibrate``."""
    parser = rebuilding_parser(
        "Is the guide the posterior? Draws data from the run's model and ranks the latents that "
        "made them among draws of the guide: too narrow, too wide, shifted, or uniform within "
        "noise, for each latent, with the coverage of credible sets. Writes the tables, the "
        "ranks (CSV), what they say (JSON) and a picture.",
        "Examples:\n  bayesvae calibrate runs/mixture\n"
        "  bayesvae calibrate runs/mixture --data-count 5000 --draws 199 --out finer",
    )
    add = parser.add_argument
    add("--data-count", type=PositiveInt, default=1000, metavar="N", help=f"{_DRAWN}, 50 or more")
    add("--draws", type=PositiveInt, default=999, metavar="N", help="of the guide, 99 or more")
    compile_argument(add, "a calibration", "its draws and densities")
    _folder_argument(add, "calibration/")
    return parser


def _folder_argument(add: Any, default: str) -> None:
    what = f"where to write (default: {default} in the run folder)"
    add("--out", type=str | None, metavar="FOLDER", help=what)
