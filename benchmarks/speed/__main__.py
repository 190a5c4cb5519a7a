"""The command: `python -m benchmarks.speed --help`."""

import argparse
import datetime
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from bayesvae.core.files import save_json
from benchmarks import speed
from benchmarks.speed import epochs, growth, machine, profiled, sources, steps, table, targets
from benchmarks.speed.cases import CASES, GROWTH, Case
from benchmarks.speed.contestants import CONTESTANTS, EPOCHS
from benchmarks.speed.workers import Place

PARTS = ("steps", "epochs", "growth")
QUICK = steps.Settings(rounds=2, seconds=0.03, fair_steps=200, fair_runs=4, tolerance=0.05)


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=speed.__doc__,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _several(made, "--parts", PARTS, f"of {', '.join(PARTS)} (all)")
    _several(made, "--cases", CASES, "for steps (all)")
    _several(made, "--contestants", CONTESTANTS, "(all)")
    add = made.add_argument
    add("--rounds", type=int, default=9, help="rounds of each case (9); 5 at least for a figure")
    add("--seconds", type=float, default=0.3, help="length of a slice of steps (0.3)")
    add(
        "--epoch-rounds", type=int, default=5, help="epochs of each contestant after the first (5)"
    )
    add("--threads", type=int, default=1, help="cores that all are pinned to, one at a time (1)")
    add("--data-root", help="folder of MNIST; else BAYESVAE_DATA, the cache, or the network")
    add("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the JSON file")
    add("--quick", action="store_true", help="a minute or two a case, to see whether all runs")
    add("--profile", action="store_true", help="instead: where the time of our steps goes")
    return made


def _several(
    made: argparse.ArgumentParser, option: str, choices: Iterable[str], text: str
) -> None:
    all_of_them = list(choices)
    kinds = {"nargs": "+", "choices": all_of_them, "default": all_of_them}
    made.add_argument(option, metavar="NAME", help=text, **kinds)


def _epilog() -> str:
    cases = "\n".join(f"  {name:16} {case.title}" for name, case in CASES.items())
    who = "\n".join(f"  {name:16} {each.title}" for name, each in CONTESTANTS.items())
    return f"""cases
{cases}

contestants
{who}

examples
  python -m benchmarks.speed --quick --parts steps --cases digits
  python -m benchmarks.speed --parts steps --cases digits mnist --contestants bayesvae hand numpyro
  python -m benchmarks.speed --parts epochs --data-root ~/data
  python -m benchmarks.speed --profile --cases mnist

Everything takes three quarters of an hour.  Run it on a machine with nothing else to do; it says
when others used the cores.  Ends with code 1
if a contestant failed or did other work than the rest; a target that is missed is no failure."""


def measured(
    options: argparse.Namespace, folder: str, tell: steps.Tell
) -> Iterator[dict[str, Any]]:
    """Everything that was asked for, as the JSON file holds it; one report that grows.

    Args:
        options: the command's.
        folder: for the contestants' use.
        tell: hears what is going on.
    """
    settings = steps.Settings(rounds=options.rounds, seconds=options.seconds)
    settings = QUICK if options.quick else settings
    report: dict[str, Any] = {
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "threads": options.threads,
        "settings": settings._asdict(),
        "quick": options.quick,
        "others_before": machine.others_now(),
        "cases": {},
    }
    place = Place(machine.cores(options.threads), folder)
    if "steps" in options.parts:
        for name in options.cases:
            report["cases"][name] = _case(CASES[name], options, place, settings, tell)
            yield report
    if "epochs" in options.parts:
        report["epochs"] = _epochs(options, place, settings, tell)
        yield report
    if "growth" in options.parts:
        report["growth"] = _growth(options, place, settings, tell)
        yield report


def _case(
    case: Case,
    options: argparse.Namespace,
    place: Place,
    settings: steps.Settings,
    tell: steps.Tell,
) -> dict[str, Any]:
    source = sources.of_case(case, options.data_root)
    given = steps.make_set(case, sources.bits(source.train[:6144]))
    look = partial(steps.compare, given, options.contestants, place, settings, tell)
    return steps.finished(case.title, look) | {"data": source.name, "made_up": source.made_up}


def _epochs(
    options: argparse.Namespace, place: Place, settings: steps.Settings, tell: steps.Tell
) -> dict[str, Any]:
    source = sources.mnist(options.data_root)
    if options.quick:
        source = source._replace(train=source.train[:3000])
    names = [n for n in EPOCHS if n.removesuffix("-auto") in options.contestants]
    settings = settings._replace(rounds=2 if options.quick else options.epoch_rounds)
    look = partial(epochs.compare, source, names, place, settings, tell)
    return steps.finished("epochs", look) | {"data": source.name, "made_up": source.made_up}


def _growth(
    options: argparse.Namespace, place: Place, settings: steps.Settings, tell: steps.Tell
) -> dict[str, Any]:
    cases = {name: sizes[:2] for name, sizes in GROWTH.items()} if options.quick else GROWTH
    source = sources.mnist(options.data_root)
    return growth.compare(source, options.contestants, place, settings, tell, cases)


def _rounds(report: dict[str, Any]) -> dict[str, Any]:
    rounds = {name: case["rounds"] for name, case in report["cases"].items()}
    return rounds | {"epochs": report.get("epochs", {}).get("rounds", [])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and saves everything; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.profile:
        return profiled.show(options)
    bar = tqdm(bar_format="{desc} [{elapsed}]", file=sys.stderr)
    with bar, TemporaryDirectory(prefix="bayesvae-bench-") as folder:
        for report in measured(options, folder, bar.set_description_str):
            reached = targets.outcomes(_rounds(report))
            report["targets"] = [targets.as_json(outcome) for outcome in reached]
            file = options.out / f"speed-{report['when'].replace(':', '')[:17]}.json"
            save_json(file, report)
    print(table.text(report, reached))
    print(f"All rounds: {file}")
    return 0 if table.sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
