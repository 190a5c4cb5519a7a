"""The benchmarks' own arithmetic: what is timed, compared and said; no contestant but torch."""

import doctest
import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from bayesvae.objectives import elbo

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def part(name):
    return importlib.import_module(f"benchmarks.speed.{name}")


# Time and ratios ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "seconds", "steps"),
    [(0.002, 0.3, 150), (1.0, 0.3, 1), (1e-9, 0.3, 100_000), (0.0, 0.3, 100_000)],
)
def test_a_slice_has_at_least_one_step_and_never_endlessly_many(each, seconds, steps):
    assert part("measure").calibrate(lambda count: each * count, seconds) == steps


def test_a_first_slow_call_does_not_decide_the_length_of_a_slice():
    calls = itertools.count()

    def run(steps):
        return (0.03 if next(calls) == 0 else 0.0) + 0.001 * steps

    assert part("measure").calibrate(run, 0.3) == 300


def test_every_round_runs_everybody_and_nobody_always_comes_first_or_after_the_same():
    orders = list(part("measure").turns(["a", "b", "c", "d"], 8))
    assert all(sorted(order) == ["a", "b", "c", "d"] for order in orders)
    assert {order[0] for order in orders} == {"a", "b", "c", "d"}
    before_b = {order[order.index("b") - 1] for order in orders if order[0] != "b"}
    assert len(before_b) > 1


def test_rounds_hold_seconds_a_step_and_not_seconds_a_slice():
    runs = {"a": lambda steps: 2.0 * steps, "b": lambda steps: 3.0 * steps}
    rounds = list(part("measure").interleaved(runs, {"a": 10, "b": 5}, 2))
    assert rounds == [{"a": 2.0, "b": 3.0}] * 2


def test_a_ratio_is_formed_within_rounds_so_that_a_slow_minute_does_not_count():
    rounds = [{"a": 1.0, "b": 2.0}, {"a": 10.0, "b": 20.0}, {"a": 3.0, "b": 2.0}]
    measure = part("measure")
    assert measure.ratio(rounds, "a", "b") == 0.5  # the medians' own ratio is 3 / 2
    assert measure.median(rounds, "a") == 3.0


def test_spread_is_half_the_distance_of_the_quartiles():
    rounds = [{"a": value} for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)]
    assert part("measure").spread(rounds, "a") == (6.0 - 2.0) / 2 / 4.0


# The machine -------------------------------------------------------------------------------------


def write_proc(root, busy, own):
    (root / "7").mkdir(parents=True, exist_ok=True)
    (root / "stat").write_text(f"cpu  {busy} 0 0 99999 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    (root / "7" / "stat").write_text(f"7 (py (x) y) S {'1 ' * 10}{own} 0 0 0 20 0 1\n")


def test_what_is_busy_and_not_ours_is_somebody_elses(tmp_path, monkeypatch):
    machine = part("machine")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    clock = iter([10.0, 12.0, 14.0])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    write_proc(tmp_path, busy=1000, own=400)
    first = machine.read([7, 8], tmp_path)
    write_proc(tmp_path, busy=1200, own=600)  # two seconds of one core, all of it ours
    second = machine.read([7, 8], tmp_path)
    write_proc(tmp_path, busy=1500, own=700)  # three seconds of work, one of it ours
    third = machine.read([7, 8], tmp_path)
    assert machine.others(first, second) == 0.0
    assert machine.others(second, third) == 1.0


def test_time_that_another_virtual_machine_took_is_not_idle_but_waiting_for_a_disk_is():
    busy = part("machine").busy_ticks
    idle = busy("cpu  100 0 0 500 70 0 0 0 0 0")
    assert busy("cpu  100 0 0 500 70 0 0 33 0 0") == idle + 33
    assert busy("cpu  100 0 0 500 99 0 0 0 0 0") == idle


def test_more_threads_than_cores_are_refused():
    with pytest.raises(ValueError, match="--threads must lie between"):
        part("machine").cores(10_000)


def test_memory_is_what_this_process_held_and_not_its_parent(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9999999 kB\nVmHWM:\t  204800 kB\nVmRSS:\t 1 kB\n")
    assert part("worker").peak_mb(status) == 200.0


# Fairness ----------------------------------------------------------------------------------------

TINY = {"features": 12, "hidden": 7, "latent": 3, "batch": 5}
VARIANTS = {
    "standard": {},
    "analytic": {"analytic_kl": True},
    "mixture": {"prior": "mixture", "components": 4},
    "vamp": {"prior": "vamp", "components": 6},
    "full": {"full": True},
    "particles": {"particles": 4},
    "table": {"table": 40},
    "full, mixture, particles": {
        "full": True,
        "prior": "mixture",
        "components": 2,
        "particles": 3,
    },
}


@pytest.fixture(params=VARIANTS)
def given(request):
    cases = part("cases")
    case = cases.Case(request.param, **TINY, **VARIANTS[request.param])
    bits = (np.random.default_rng(1).random((40, 12)) < 0.4).astype(np.float32)
    return part("steps").make_set(case, bits)


def double(weights):
    return {name: torch.tensor(value).double() for name, value in weights.items()}


def posterior_noise(q, z):
    """The standard normal draw behind a draw of a posterior."""
    scale_tril = getattr(q, "scale_tril", None)
    if scale_tril is None:
        return (z - q.mean) / q.stddev
    apart = (z - q.loc).unsqueeze(-1)
    return torch.linalg.solve_triangular(scale_tril, apart, upper=False).squeeze(-1)


def test_the_hand_written_loss_is_the_objective_of_the_pair_on_equal_weights_and_noise(given):
    case, parts = given.case, part("parts")
    made = parts.make_parts(case, given.weights)
    pair = parts.make_pair(made)
    x, index = torch.tensor(given.x[1]).double(), torch.tensor(given.index[1])

    drawn = []

    def guide(x, index):
        drawn.append(pair.guide(x, index))

    kinds = {"particles": case.particles, "analytic_kl": case.analytic_kl}
    expected = elbo(pair.model, guide, x, index, **kinds)
    noise = posterior_noise(made.guide.posterior(x, index), drawn[-1]).detach()
    noise = noise.reshape(case.noise)
    own = part("handwritten").loss(double(given.weights), x, index, noise, case)
    torch.testing.assert_close(own, -expected, rtol=0, atol=1e-6)


def test_every_contestant_of_torch_starts_at_the_weights_it_is_given_and_moves_them(given):
    torch.set_default_dtype(torch.float32)
    contestants = part("contestants")
    for name in ("hand", "pyro", "pyro-mean-field"):
        if not contestants.CONTESTANTS[name].takes(given.case):
            continue
        pyro.clear_param_store()
        made = contestants.make(name, *given)
        before = made.weights()
        assert before.keys() == given.weights.keys()
        assert all(np.array_equal(before[k], given.weights[k]) for k in before), name
        made.run(2)
        still = [k for k, v in made.weights().items() if np.array_equal(v, before[k])]
        assert still == [], name


@pytest.mark.parametrize("given", [name for name in VARIANTS if name != "table"], indirect=True)
def test_the_compiled_hand_written_step_is_adam(given):
    """Its own Adam, run without a compiler, moves as torch's does under the same noise."""
    torch.set_default_dtype(torch.float32)
    in_torch = part("in_torch")
    reached = []
    with torch.compiler.set_stance("force_eager"):
        for compiled in (None, "loss", "adam", "step"):
            torch.manual_seed(0)
            made = in_torch.make(*given, compiled=compiled)
            made.run(4)
            reached.append(made.weights())
    for other in reached[1:]:
        for name, value in reached[0].items():
            np.testing.assert_allclose(other[name], value, atol=2e-5, err_msg=name)


def test_who_ends_elsewhere_is_unfair_and_who_ends_within_the_noise_is_not():
    judged = part("fairness").judged({"a": -100.9, "b": -97.0}, [-100.0, -100.5, -99.5])
    assert judged["a"].fair
    assert not judged["b"].fair
    assert judged["b"].allowed == pytest.approx(5 * 0.5 * (4 / 3) ** 0.5)


def test_a_bound_that_never_varies_still_leaves_half_a_percent():
    judged = part("fairness").judged({"a": -100.4, "b": -100.6}, [-100.0, -100.0])
    assert (judged["a"].fair, judged["b"].fair) == (True, False)


# What is said ------------------------------------------------------------------------------------


def report(**changes):
    fair = {"elbo": -26.5, "expected": -26.4, "allowed": 0.5, "fair": True}
    case = {
        "title": "64-128-8",
        "errors": {},
        "others": [0.0, 0.02, 0.0],
        "rounds": [
            {"bayesvae": 0.001, "hand": 0.004},
            {"bayesvae": 0.003, "hand": 0.006},
            {"bayesvae": 0.001, "hand": 0.002},
        ],
        "start": {
            name: {"imported": 1.0, "first": 2.0, "warm": 9.5} for name in ("bayesvae", "hand")
        },
        "memory": {"bayesvae": 500.0, "hand": 400.0},
        "verdicts": {"bayesvae": fair, "hand": dict(fair)},
    }
    case |= changes.pop("case", {})
    return {
        "cases": {"digits": case},
        "others_before": 0.0,
        "threads": 1,
        "quick": False,
    } | changes


def test_the_table_shows_ratio_before_milliseconds_and_medians_of_both():
    table = part("table")
    rows = {row[0]: row for row in table.rows(report()) if len(row) > 1}
    assert rows["hand-written, fused Adam"][1:3] == ["0.50", "4.000 ms"]
    assert rows["bayesvae compiled"][1:3] == ["1.00", "1.000 ms"]
    assert table.HEADER[1:3] == ("ours / it", "time")
    assert table.warnings(report()) == []
    assert table.sound(report())


@pytest.mark.parametrize(
    ("changes", "said", "sound"),
    [
        ({"quick": True}, "QUICK", True),
        ({"others_before": 0.7}, "NOT IDLE before the start: others used 0.70", True),
        ({"case": {"others": [0.0, 0.9]}}, "NOT IDLE during digits: others used up to 0.90", True),
        ({"case": {"made_up": True, "data": "made-up data"}}, "MADE-UP DATA in digits", True),
        ({"case": {"cores_used": {"hand": 1.9}}}, "TOO MANY THREADS in digits", True),
        ({"case": {"errors": {"pyro": "pyro: no module"}}}, "FAILED in digits: pyro: no", False),
        (
            {
                "case": {
                    "verdicts": {
                        "hand": {"elbo": -9.0, "expected": -26.0, "allowed": 0.5, "fair": False}
                    }
                }
            },
            "UNFAIR in digits: hand reached -9.00 nats, the others -26.00 +- 0.50",
            False,
        ),
    ],
)
def test_whatever_spoils_the_figures_is_said_at_both_ends(changes, said, sound):
    table, spoiled = part("table"), report(**changes)
    text = table.text(spoiled, [])
    assert text.splitlines()[0] == text.splitlines()[-1]
    assert said in text.splitlines()[0]
    assert table.sound(spoiled) is sound


def test_a_contestant_that_failed_has_a_row_that_says_so():
    failed = report(case={"errors": {"numpyro": "numpyro: ModuleNotFoundError"}})
    rows = {row[0]: row for row in part("table").rows(failed) if row}
    assert rows["NumPyro, jitted update"][-1] == "failed"


def test_a_contestant_that_ends_in_the_midst_costs_its_case_and_not_the_run():
    steps, error = part("steps"), part("workers").ContestantError

    def look():
        raise error("pyro", "Killed")

    assert steps.finished("a case", lambda: {"rounds": [1]}) == {"rounds": [1]}
    found = steps.finished("a case", look)
    spoiled = report()
    spoiled["cases"]["mnist"] = found
    assert "FAILED in mnist: pyro: Killed" in part("table").text(spoiled, [])
    assert not part("table").sound(spoiled)


def test_a_target_is_judged_against_the_fastest_of_several():
    targets = part("targets")
    target = targets.Target("mnist", "bayesvae", ("hand-loss", "hand-step", "absent"), 1.05, 1.0)
    rounds = [{"bayesvae": 1.02, "hand-loss": 2.0, "hand-step": 1.0}] * 3
    (outcome,) = targets.outcomes({"mnist": rounds}, [target])
    assert (outcome.other, outcome.ratio, outcome.met) == ("hand-step", 1.02, True)
    assert str(outcome).endswith("met")
    (missed,) = targets.outcomes({"mnist": [rounds[0] | {"bayesvae": 1.2}]}, [target])
    assert str(missed).endswith("MISSED")
    (more,) = targets.outcomes({"mnist": [rounds[0] | {"bayesvae": 0.9}]}, [target])
    assert str(more).endswith("stretch too")


def test_every_target_names_a_case_and_contestants_that_exist():
    cases, contestants = part("cases").CASES, part("contestants")
    for target in part("targets").TARGETS:
        epochs = target.case == "epochs"
        known = contestants.EPOCHS if epochs else contestants.CONTESTANTS
        assert target.case in cases or target.case == "epochs"
        assert {target.name, *target.others} <= set(known)


def test_the_help_teaches_every_case_and_contestant(capsys):
    command = part("__main__")
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    said = capsys.readouterr().out
    words = [*part("cases").CASES, *part("contestants").CONTESTANTS, "examples", "--quick"]
    assert [word for word in words if word not in said] == []


SPEED = ("cases", "measure", "machine", "fairness", "sources", "targets", "profiled")


@pytest.mark.parametrize("name", [*(f"speed.{part}" for part in SPEED), "bf16", "inference"])
def test_the_examples_in_docstrings_hold(name):
    torch.set_default_dtype(torch.float32)
    outcome = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


# One contestant in a process of its own ----------------------------------------------------------


def test_a_process_trains_on_the_cores_it_is_given_and_its_failure_is_told_in_its_words(tmp_path):
    torch.set_default_dtype(torch.float32)
    workers, steps, machine = part("workers"), part("steps"), part("machine")
    cases = part("cases")
    place = workers.Place(machine.cores(1), tmp_path)
    given = steps.make_set(cases.Case("tiny", **TINY), np.eye(12)[[0, 3, 5, 7, 9] * 4])
    settings = steps.Settings(rounds=2, seconds=0.01, fair_steps=30, fair_runs=3)
    found = steps.compare(given, ["hand", "floor"], place, settings, lambda said: None)
    assert found["errors"] == {}
    assert [sorted(each) for each in found["rounds"]] == [["floor", "hand"]] * 2
    assert all(took > 0 for each in found["rounds"] for took in each.values())
    assert list(found["verdicts"]) == ["hand"]
    assert found["start"]["hand"]["imported"] < found["start"]["hand"]["warm"]
    absent = given._replace(case=given.case._replace(prior="nobody's"))
    with pytest.raises(workers.ContestantError, match=r"hand: .*Error"):
        workers.Worker(place, "steps", "hand", absent.case._replace(batch=0), Path("nowhere.npz"))


def test_nobody_is_charged_for_importing_another_ones_libraries():
    import_all = "import sys, benchmarks.speed.worker, benchmarks.speed.contestants"
    check = "sys.exit(str({'torch', 'pyro', 'bayesvae', 'jax'} & set(sys.modules) or ''))"
    done = subprocess.run(
        [sys.executable, "-c", f"{import_all}; {check}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.strip() == ""


def test_nothing_here_needs_the_packages_that_are_compared_with():
    assert not {"numpyro", "jax", "pythae"} & set(sys.modules)
