"""The report in words: one table, then what was aimed at, then everything that spoils it."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed import machine, measure
from benchmarks.speed.contestants import CONTESTANTS, EPOCHS
from benchmarks.speed.targets import Outcome

OURS = "bayesvae"
HEADER = (
    "contestant",
    "ours / it",
    "time",
    "+-",
    "import",
    "first step",
    "warm",
    "again",
    "memory",
    "ELBO",
    "",
)
EPOCH_HEADER = (*HEADER[:4], "ready", "first epoch", "all", "", *HEADER[8:])
NOTES = """\
ours / it   time of bayesvae compiled divided by this one's, median over rounds of the ratio within
            a round: below 1, bayesvae is faster
time        median over rounds, of a step or of an epoch; +- is half the distance of the quartiles
import, first step, warm
            seconds after the process was started; warm is after ten steps, compilation included,
            with nothing compiled before; again: warm at a second start, compiled code at hand
ready, first epoch, all
            seconds from the start of the process to the first epoch, of that epoch alone, and of
            all epochs of this run, compilation included
memory      the most that the process held, MB
ELBO        nats per datum after equally many steps from the same weights, judged alike for all
KL          sampled (Pyro's Trace_ELBO), or in closed form (TraceMeanField_ELBO) where it says
            "analytic KL", and always by pythae
pyro        built of bayesvae's networks and priors, whose import its start includes
pythae      its trainer's train_step: forward, backward, optimiser, callbacks; batches in memory
products    forward and backward, each in the fastest way that torch has"""


def text(report: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """All that is printed.

    Args:
        report: what the JSON file holds.
        outcomes: of the targets.
    """
    parts = [*warnings(report), "", _aligned(rows(report)), "", NOTES, ""]
    if outcomes:
        parts += ["targets", *map(str, outcomes), ""]
    return "\n".join([*parts, *warnings(report)])


def rows(report: Mapping[str, Any]) -> list[Sequence[str]]:
    """The table's cells."""
    cells: list[Sequence[str]] = []
    for name, case in report["cases"].items():
        cells += [(f"{name}: {case['title']}, a step",), HEADER]
        cells += [_row(case, key, CONTESTANTS[key].title, 1e3) for key in _named(case)]
        cells.append(())
    if report.get("epochs"):
        epochs = report["epochs"]
        cells += [
            (f"784-400-20, an epoch of {epochs['data']}, everything included",),
            EPOCH_HEADER,
        ]
        cells += [_row(epochs, key, EPOCHS[key].title, 1.0) for key in _named(epochs)]
        cells.append(())
    for direction, sizes in report.get("growth", {}).items():
        cells += _growth(direction, sizes)
    return cells


def warnings(report: Mapping[str, Any]) -> list[str]:
    """Everything because of which the figures are not to be trusted, a line each."""
    said = []
    if report.get("quick"):
        said.append("QUICK: these figures show that everything runs, and nothing else.")
    busy = report["others_before"]
    if busy > machine.QUIET:
        said.append(f"THE MACHINE WAS NOT IDLE before the start: others used {busy:.2f} cores.")
    for name, case in _measured(report):
        noisy = [used for used in case.get("others", []) if used > machine.QUIET]
        if noisy:
            said.append(
                f"THE MACHINE WAS NOT IDLE during {name}: others used up to {max(noisy):.2f} "
                f"cores in {len(noisy)} of {len(case['others'])} rounds."
            )
        if case.get("made_up"):
            said.append(f"MADE-UP DATA in {name}: {case['data']} instead of MNIST.")
        used = max(case.get("cores_used", {}).values(), default=0.0)
        if used > 1.05 * report["threads"]:
            said.append(f"TOO MANY THREADS in {name}: up to {used:.2f} cores were used.")
        said += [f"FAILED in {name}: {error}" for error in case["errors"].values()]
        said += [
            f"UNFAIR in {name}: {key} reached {verdict['elbo']:.2f} nats, the others "
            f"{verdict['expected']:.2f} +- {verdict['allowed']:.2f}."
            for key, verdict in case.get("verdicts", {}).items()
            if not verdict["fair"]
        ]
    return said


def sound(report: Mapping[str, Any]) -> bool:
    """Whether everybody took part and did the same work."""
    cases = [case for _, case in _measured(report)]
    fair = all(v["fair"] for case in cases for v in case.get("verdicts", {}).values())
    return fair and not any(case["errors"] for case in cases)


def _measured(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = list(report["cases"].items())
    found += [("epochs", report["epochs"])] if report.get("epochs") else []
    for sizes in report.get("growth", {}).values():
        found += sizes.items()
    return found


def _named(case: Mapping[str, Any]) -> list[str]:
    """Contestants in the order of the tables, those that failed among them."""
    known = [*case["memory"], *case["errors"]]
    order = list(CONTESTANTS)
    return sorted(known, key=lambda name: order.index(name) if name in order else 0)


def _row(case: Mapping[str, Any], name: str, title: str, unit: float) -> list[str]:
    if name not in case["memory"]:
        return [title, *["-"] * 9, "failed"]
    rounds = case["rounds"]
    ratio = f"{measure.ratio(rounds, OURS, name):.2f}" if OURS in rounds[0] else "-"
    took = f"{unit * measure.median(rounds, name):.3f} {'ms' if unit > 1 else 's'}"
    if "start" in case:
        when = [f"{case['start'][name][key]:.1f}" for key in ("imported", "first", "warm")]
        again = case.get("again", {}).get(name)
        when.append(f"{again['warm']:.1f}" if again else "")
    else:
        first = case["first"][name]
        whole = first + sum(each[name] for each in rounds)
        when = [f"{case['ready'][name]:.1f}", f"{first:.1f}", f"{whole:.1f}", ""]
    verdict = case["verdicts"].get(name)
    bound = f"{verdict['elbo']:.2f}" if verdict else "-"
    fair = "" if verdict is None or verdict["fair"] else "UNFAIR"
    spread = f"{100 * measure.spread(rounds, name):.0f} %"
    return [title, ratio, took, spread, *when, f"{case['memory'][name]:.0f}", bound, fair]


def _growth(direction: str, sizes: Mapping[str, Any]) -> list[Sequence[str]]:
    names = list(dict.fromkeys(key for case in sizes.values() for key in case["memory"]))
    cells = [(f"growth with the {direction}: ms a step",)]
    cells.append(["size", *(CONTESTANTS[name].title for name in names)])
    for size, case in sizes.items():
        times = [
            f"{1e3 * measure.median(case['rounds'], name):.3f}" if name in case["memory"] else "-"
            for name in names
        ]
        cells.append([size, *times])
    return [*cells, ()]


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; a row of one cell is a title."""
    several = [row for row in cells if len(row) > 1]
    count = max(map(len, several), default=0)
    widths = [max(len(row[i]) for row in several if i < len(row)) for i in range(count)]
    lines = []
    for row in cells:
        if len(row) == 1:
            lines.append(f"{row[0]}")
            continue
        padded = [
            cell.rjust(widths[i]) if i else cell.ljust(widths[i]) for i, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(padded)).rstrip())
    return "\n".join(lines)
