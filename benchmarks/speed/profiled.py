"""Where the time of our compiled steps goes, by torch's profiler, and what is left for Python."""

import argparse
import os
from collections.abc import Iterable

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.speed import machine, measure, sources, steps
from benchmarks.speed.cases import CASES
from benchmarks.speed.contestants import CONTESTANTS, Steps, make
from benchmarks.speed.worker import elapsed, now

PROFILED = 100
OURS = ("bayesvae", "bayesvae-bf16", "bayesvae-eager")
WHOLE = "steps"
GROUPS = {
    "matrix products": ("mm", "linear", "matmul", "mkldnn", "onednn"),
    "random numbers": ("normal_", "rand", "normal_functional"),
    "guards and wrappers of torch.compile": ("Dynamo", "AOTDispatcher", "bytecode", "-Compiled"),
    "compiled kernels and their calls": ("CompiledFxGraph",),
    "Python around them": (WHOLE,),
}
OTHER = "other operators"


def grouped(operators: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The time of each group of operators.

    Args:
        operators: names, and the time spent in each itself.

    Example:
        >>> grouped([("aten::addmm", 2.0), ("aten::mm", 1.0), ("aten::add", 0.5)])
        {'matrix products': 3.0, 'other operators': 0.5}
    """
    found: dict[str, float] = {}
    for name, took in operators:
        group = next((g for g, words in GROUPS.items() if any(w in name for w in words)), OTHER)
        found[group] = found.get(group, 0.0) + took
    return found


def show(options: argparse.Namespace) -> int:
    """Prints the profile of every case and every one of our ways; returns the exit code 0."""
    cores = machine.cores(options.threads)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    for name in options.cases:
        source = sources.of_case(CASES[name], options.data_root)
        given = steps.make_set(CASES[name], sources.bits(source.train[:6144]))
        for who in (who for who in OURS if who in options.contestants):
            trained = make(who, *given)
            trained.run(steps.SETTLED)
            print(f"\n{name}: {given.case.title}; {CONTESTANTS[who].title}")
            print(account(trained, options.seconds))
    return 0


def account(trained: Steps, seconds: float) -> str:
    """The profile of a contestant that is warm, in words."""

    def took(count: int) -> float:
        start = now()
        trained.run(count)
        return elapsed(start)["seconds"]

    count = measure.calibrate(took, seconds)
    step = 1e3 * min(took(count) for _ in range(5)) / count
    with profile(activities=[ProfilerActivity.CPU]) as seen, record_function(WHOLE):
        trained.run(PROFILED)
    operators = [(each.key, each.self_cpu_time_total) for each in seen.key_averages()]
    groups = sorted(grouped(operators).items(), key=lambda item: -item[1])
    total = sum(took for _, took in groups)
    lines = [
        f"{step:.3f} ms a step; under the profiler, which costs time itself, "
        f"{total / 1e3 / PROFILED:.3f}:"
    ]
    lines += [f"{100 * t / total:5.1f} %  {t / 1e3 / PROFILED:7.3f} ms  {g}" for g, t in groups]
    return "\n".join([*lines, _table(seen)])


def _table(seen: profile) -> str:
    """The largest operators, the columns that matter."""
    largest = sorted(seen.key_averages(), key=lambda each: -each.self_cpu_time_total)[:14]
    return "\n".join(
        f"{each.self_cpu_time_total / 1e3 / PROFILED:17.3f} ms  "
        f"{each.count / PROFILED:6.2f} a step  {each.key[:60]}"
        for each in largest
    )
