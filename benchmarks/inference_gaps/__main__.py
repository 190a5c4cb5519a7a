"""The command: `python -m benchmarks.inference_gaps --help`."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bayesvae import plots
from bayesvae.core.files import save_json, write_aside
from benchmarks import inference_gaps
from benchmarks.inference_gaps import figure, table
from benchmarks.inference_gaps.claims import Run, better_evidence, judged
from benchmarks.inference_gaps.measure import QUICK, Measured, Settings, result
from benchmarks.inference_gaps.setups import READERS, SETUPS
from benchmarks.speed.machine import facts

NUMBERS = {
    "epochs": "passes over the training images",
    "images": "training and unseen images whose gaps are measured, of each",
    "evidence_particles": "draws for importance sampling of log p(x)",
    "temperatures": "of the annealing, the other estimate of log p(x)",
    "seed": "of all random numbers",
}
"""Settings that are options of the command."""
EPILOG = """set-ups
{setups}

examples
  python -m benchmarks.inference_gaps --quick --data mnist
  python -m benchmarks.inference_gaps --data-root ~/data
  python -m benchmarks.inference_gaps --data mnist --setups standard encoder --epochs 100 \\
      --out runs/benchmarks/longer

What is done is kept and not done again, so the command goes on after an interruption; OUT/table.md
holds what is known so far.  Other settings need another folder.  Set OMP_NUM_THREADS=1 on a
machine that does something else as well."""


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    setups = "\n".join(
        f"  {name:10} {each.title}: encoder {each.encoder}, decoder {each.decoder}"
        for name, each in SETUPS.items()
    )
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.inference_gaps",
        description=inference_gaps.__doc__,
        epilog=EPILOG.format(setups=setups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, usual = made.add_argument, Settings()
    for option, names in (("--data", READERS), ("--setups", SETUPS)):
        kinds = {"nargs": "+", "choices": list(names), "default": list(names)}
        add(option, metavar="NAME", help=f"of {', '.join(names)} (all)", **kinds)
    for option, said in NUMBERS.items():
        value = getattr(usual, option)
        add(f"--{option.replace('_', '-')}", type=int, default=value, help=f"{said} ({value})")
    add("--data-root", help="folder of the images; else BAYESVAE_DATA, the cache, or the network")
    add(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/inference_gaps"),
        help="folder of results",
    )
    add("--quick", action="store_true", help="a minute, to see whether all runs; OUT-quick")
    return made


def note_settings(folder: Path, settings: Settings) -> None:
    """Notes the settings in a folder, or sees that they are those noted there.

    Raises:
        ValueError: if it holds results of other settings.
    """
    file, wanted = folder / "settings.json", json.loads(json.dumps(settings._asdict()))
    known = json.loads(file.read_text()) if file.exists() else wanted
    other = {name: known.get(name) for name, value in wanted.items() if known.get(name) != value}
    if other:
        raise ValueError(
            f"A folder holds results of one set of settings; {folder} has {other}. Use these, or "
            "another --out."
        )
    save_json(file, wanted)


def measured(
    options: argparse.Namespace, settings: Settings, out: Path
) -> Iterator[dict[str, Run]]:
    """What has been trained and measured, by data set, after each set-up."""
    found: dict[str, dict[str, Measured]] = {}
    for name in options.data:
        splits, found[name] = READERS[name](options.data_root), {}
        for setup in options.setups:
            print(f"{name}, {SETUPS[setup].title}", file=sys.stderr, flush=True)
            folder = out / f"{name}-{setup}"
            found[name][setup] = result(setup, splits, settings, folder, sys.stderr.isatty())
            every = (each for of_data in found.values() for each in of_data.values())
            evidence = better_evidence(every)
            yield {each: Run(of_data, evidence) for each, of_data in found.items()}


def report(out: Path, runs: dict[str, Run], settings: Settings, notes: list[str]) -> str:
    """Table and claims as text and JSON, a line an image as CSV, the picture; returns the text."""
    outcomes = {name: judged(run, name) for name, run in runs.items()}
    text = table.text(runs, outcomes, notes)
    how = {"settings": settings._asdict(), "machine": facts()}
    write_aside(out / "table.md", lambda aside: aside.write_text(text + "\n"))
    save_json(out / "results.json", how | table.as_json(runs, outcomes))
    table.save_csv(out / "images.csv", runs)
    plots.save(figure.gap_bars(runs), out / "gaps.png")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, saves everything after each set-up, prints the table; returns the exit code."""
    options = parser().parse_args(arguments)
    settings = Settings(**{name: getattr(options, name) for name in NUMBERS})
    out, notes = options.out, []
    if options.quick:
        settings, out = QUICK, out.with_name(f"{out.name}-quick")
        notes = ["QUICK: the figures mean nothing."]
    try:
        note_settings(out, settings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for runs in measured(options, settings, out):
        text = report(out, runs, settings, notes)
    print(text)
    print(f"Every image: {out / 'images.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
