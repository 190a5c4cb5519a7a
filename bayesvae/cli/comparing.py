"""``bayesvae compare``: what the inference of a run costs, and where the cost comes from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from bayesvae import plots
from bayesvae.cli import runs
from bayesvae.cli.arguments import COMPILE, compile_argument, rebuilding_parser
from bayesvae.cli.estimators import annealing_of, refuse_walking
from bayesvae.cli.evidence_arguments import annealing_arguments
from bayesvae.cli.examine import opened, own_data, serves_others
from bayesvae.cli.help import Parser
from bayesvae.cli.mistakes import nearest
from bayesvae.cli.output import drawing, named, require_writable, unused
from bayesvae.cli.parts import PARTS, imported
from bayesvae.core import files
from bayesvae.core.estimates import mean_and_error
from bayesvae.families import Family
from bayesvae.gaps import Comparison, compare
from bayesvae.optima import Semi


def compare_parser() -> Parser:
    """The arguments of ``bayesvae compare``."""
    parser = rebuilding_parser(
        "Take log p(x) - ELBO of a run apart, datum by datum, the model held fixed: what the "
        "family costs (log p(x) - L[q*]), what amortization costs (L[q*] - L[q_phi]), and what "
        "each way to q takes of time and memory, on training and on unseen data. Adds gaps.txt, "
        "gaps.csv and pictures under figures/ to the run, and the gaps to its summary.json.",
        "Examples:\n  bayesvae compare runs/mixture --limit 500\n"
        "  bayesvae compare runs/mixture --families Normal MultivariateNormal Flow --semi-steps "
        "1 5 20\n"
        "  bayesvae compare runs/mixture --annealing    (log p(x) by annealing as well)",
    )
    add = parser.add_argument
    add("--limit", type=PositiveInt, default=300, metavar="N", help="data of each split")
    add("--particles", type=PositiveInt, default=200, metavar="N", help="draws for each bound")
    _search_arguments(parser)
    _evidence_arguments(parser)
    group = parser.add_argument_group("data, if not where the run found them")
    group.add_argument("--data", type=str | None, metavar="NAME|PATH", help="the same data")
    group.add_argument("--data-root", type=str | None, metavar="FOLDER", help="as in fit")
    return parser


def _search_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("the search for the best q of each datum").add_argument
    add(
        "--families",
        type=str,
        nargs="+",
        default=["Normal", "MultivariateNormal"],
        metavar="NAME",
        help="the families searched in, each next one wider: names of `bayesvae list families`, "
        "or yours as mymodule.MyFamily; with the guide's own among them the gap is divided",
    )
    add(
        "--semi-steps",
        type=NonNegativeInt,
        nargs="+",
        metavar="K",
        help="also the bound after K gradient steps from the guide's q, for each K, say 1 5 20",
    )
    compile_argument(add, "a search", "the steps of the search")


def _evidence_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("log p(x)").add_argument
    add(
        "--evidence-particles",
        type=PositiveInt,
        default=1000,
        metavar="N",
        help="draws of importance sampling, from a mixture of the guide and every q found",
    )
    annealing_arguments(
        add,
        "walk from the guide to the posterior as well, and take the gaps from that lower bound",
    )


def run_compare(options: Namespace) -> None:
    """Compares amortized with per-datapoint inference on a run, and adds to its folder."""
    families = _families(options.families)
    refuse_walking(options)
    _refuse_twice("--semi-steps", options.semi_steps or ())
    semi = Semi(tuple(options.semi_steps)) if options.semi_steps else None
    run = opened(options)
    unused(run.folder / "gaps.csv", options.overwrite, "Add --overwrite.")
    require_writable(run.folder / "figures")
    if options.data is not None:
        run.config.data = options.data
    own = own_data(run, options)
    amortized = serves_others(run, own.seen)
    unseen = own.test if amortized else None
    comparison = compare(
        run.pair,
        own.seen.first(options.limit),
        None if unseen is None else unseen.first(options.limit),
        families=families,
        semi=semi,
        annealing=annealing_of(options) if options.annealing else None,
        particles=options.particles,
        evidence_particles=options.evidence_particles,
        training_seconds=runs.read_summary(run.folder).get("seconds") if amortized else None,
        compile=COMPILE[options.compile],
        progress=not options.quiet,
    )
    with runs.adding(run, run.folder) as folder:
        _save(comparison, run.folder, folder)
    print(comparison)
    print(f"\nAdded gaps.txt and gaps.csv to {run.folder}")
    with runs.adding(run, run.folder / "figures") as folder, drawing():
        figures = comparison.figures(run.pair, run.facts.names)
        for name, figure in figures.items():
            plots.save(figure, folder / f"{name}.png")
        print(f"and, under figures/, {', '.join(figures)}")


def _save(comparison: Comparison, run: Path, folder: Path) -> None:
    text = f"{comparison}\n"
    files.write_aside(folder / "gaps.txt", lambda aside: aside.write_text(text))
    entries = _gap_figures(comparison) | {"comparison": _details(comparison)}
    runs.write_summary(run, entries, into=folder)
    comparison.to_csv(folder / "gaps.csv")


def _families(names: Sequence[str]) -> list[Callable[[int], Family]]:
    """The classes of the families.

    Raises:
        ValueError: for a name that there is not, or that is there twice.
    """
    known = PARTS["family"].classes
    wrong = [name for name in names if "." not in name and name not in known]
    if wrong:
        raise ValueError(
            f"--families takes any of {', '.join(known)}, or an import path such as "
            f"mymodule.MyFamily; got {wrong[0]}.{nearest(wrong[0], known)}"
        )
    _refuse_twice("--families", names)
    return [known.get(name) or imported(name, "--families", Family) for name in names]


def _refuse_twice(option: str, given: Sequence[Any]) -> None:
    """Refuses values that are there more than once.

    Raises:
        ValueError: if there is one.
    """
    twice = [value for value in given if given.count(value) > 1]
    if twice:
        raise ValueError(f"{option} takes each value once; got {twice[0]} again. Leave it out.")


def _gap_figures(comparison: Comparison) -> dict[str, float]:
    """The gaps by name; unprefixed on unseen data, where there are any."""
    figures = {}
    for name, split in comparison.splits.items():
        prefix = "" if name == list(comparison.splits)[-1] else f"{name}_"
        gaps = {"inference_gap": split.inference_gap}
        if split.own is not None:
            gaps["approximation_gap"] = split.approximation_gap
            gaps["amortization_gap"] = split.amortization_gap
        for gap, values in gaps.items():
            figures |= named(prefix + gap, mean_and_error(values))
    return figures


def _details(comparison: Comparison) -> dict[str, Any]:
    """What depends on the options: bounds by name on every split, and prices."""
    found: dict[str, Any] = {}
    for name, split in comparison.splits.items():
        found[name] = {}
        for bound, estimate in split.bounds_by_name().items():
            found[name] |= named(bound, estimate.mean())
    found["seconds_per_1000_data"] = {p.route: p.seconds for p in comparison.prices}
    cheaper = comparison.break_even()
    if cheaper is not None:
        found |= {"guide_cheaper_than": cheaper[0], "guide_cheaper_from_data": cheaper[1]}
    return found
