"""Where the time of our compiled steps goes: operators by torch's profiler, and the rest.

What no operator accounts for is Python and dispatch around the compiled code: the call of
`CompiledSVI.update`, the guards of `torch.compile`, the allocation of results.
"""

import argparse
import os

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.speed import machine, measure, sources, steps
from benchmarks.speed.contestants import CONTESTANTS, Steps, make
from benchmarks.speed.worker import WARM, elapsed, now

PROFILED = 100
OURS = ("bayesvae", "bayesvae-bf16", "bayesvae-eager")


def show(options: argparse.Namespace) -> int:
    """Prints the profile of every case and every one of our ways; returns the exit code 0."""
    cores = machine.cores(options.threads)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    for name in options.cases:
        source = sources.of_case(steps.CASES[name], options.data_root)
        given = steps.make_set(steps.CASES[name], sources.bits(source.train[:6144]))
        for who in (who for who in OURS if who in options.contestants):
            trained = make(who, *given)
            trained.run(5 * WARM)
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
    with profile(activities=[ProfilerActivity.CPU]) as seen, record_function("steps"):
        trained.run(PROFILED)
    operators = [each for each in seen.key_averages() if each.key != "steps"]
    inside = sum(each.self_cpu_time_total for each in operators) / 1e3 / PROFILED
    lines = [
        f"{step:.3f} ms a step without the profiler, the best of five slices",
        f"{inside:.3f} ms a step inside operators and compiled code, by the profiler",
        f"{step - inside:.3f} ms a step outside of them (below 0: the profiler's own cost)",
        seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=18),
    ]
    return "\n".join(lines)
