"""One start, one clock, one yardstick: what makes routes of training comparable."""

import copy
import csv
import itertools
from functools import cache, partial

import pytest
import torch
from comparing import SHORT
from linear_gaussian import drawn, rotated
from sklearn.decomposition import PCA
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from bayesvae import compare, compare_training, families, fit, guides, routes
from bayesvae.objectives import elbo
from bayesvae.pairs import PPCA
from bayesvae.training import RowAdam

FAMILY = families.Normal(2)
SEEN, UNSEEN = (drawn(rotated(), size, seed).double() for size, seed in ((40, 1), (12, 2)))
AS_WRITTEN = partial(fit, compile=False)
HASTY = partial(compare, particles=5, evidence_particles=25, ascent=SHORT, compile=False)


def start(model=PPCA):
    """A model and an encoder that know nothing yet."""
    torch.manual_seed(3)
    return model(torch.randn(5, 2), torch.zeros(5), 1.0), nn.Linear(5, FAMILY.size)


def trained(model=PPCA, **settings):
    made = start(model)
    settings = {"train": AS_WRITTEN, "judge": HASTY, "progress": False, **settings}
    return compare_training(*made, FAMILY, SEEN, UNSEEN, **settings)


@cache
def short():
    """All four routes for four steps each; a second is what passes between two looks."""
    with torch.random.fork_rng():
        return trained(seconds=6, moments=2, particles=50, clock=itertools.count().__next__)


def ticking():
    """A model whose every run takes a second, each copy of its state a thousand, and its clock."""
    passed = [0]

    class Ticking(PPCA):
        def forward(self, x, index=None):
            passed[0] += 1
            return super().forward(x, index)

        def state_dict(self, *args, **named):
            passed[0] += 1000
            return super().state_dict(*args, **named)

    return Ticking, lambda: passed[0]


# The truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", routes.ROUTES)
def test_every_route_comes_to_the_maximum_of_the_likelihood_and_not_above(name):
    steps, best = 250, PPCA.maximum_likelihood(SEEN, 2).log_evidence(SEEN).mean().item()
    assert PCA(2).fit(SEEN.numpy()).score(SEEN.numpy()) == pytest.approx(best, abs=1e-3)
    train = partial(
        AS_WRITTEN,
        objective=partial(elbo, analytic_kl=True),
        optimizer=partial(Adam, lr=0.1, fused=True),
        row_optimizer=partial(RowAdam, lr=0.2),
        scheduler=lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / steps)),
    )
    named = {name: routes.ROUTES[name]}
    found = trained(routes=named, seconds=1e9, moments=1, epochs=steps, train=train)
    first, *_, last = found.courses[name].moments
    reached = found.courses[name].pair.model_part_0.log_evidence(SEEN).mean().item()
    assert best - 0.02 < reached <= best + 1e-9
    assert last.train.value.mean() > first.train.value.mean() + 1
    assert last.log_evidence.value.mean() > first.log_evidence.value.mean() + 1


def test_the_yardstick_is_the_best_of_the_family_and_log_p_of_the_routes_own_model():
    judge = partial(compare, particles=2000, evidence_particles=2000, compile=False)
    found = trained(routes={"rows": routes.JOINT}, epochs=3, judge=judge, moments=1)
    model, last = found.courses["rows"].pair.model_part_0, found.courses["rows"].moments[-1]
    truth = model.log_evidence(UNSEEN).detach()
    assert ((last.log_evidence.value - truth) / last.log_evidence.stderr).abs().max() < 5
    optimum = truth - model.diagonal_gap().detach()
    assert (last.optimum.value - optimum).mean().item() == pytest.approx(0, abs=0.02)


# One start --------------------------------------------------------------------------------------


def test_all_routes_start_at_one_model():
    first = [course.moments[0] for course in short().courses.values()]
    assert [(m.seconds, m.steps) for m in first] == [(0.0, 0)] * 4
    for other in first[1:]:
        assert torch.equal(other.optimum.value, first[0].optimum.value)
        assert torch.equal(other.log_evidence.value, first[0].log_evidence.value)
    _, _, joint, em = first
    assert torch.equal(joint.train.value, em.train.value)


def test_the_models_part_ways_and_the_caller_keeps_an_untrained_one():
    model, encoder = start()
    before = [copy.deepcopy(part.state_dict()) for part in (model, encoder)]
    found = compare_training(
        model, encoder, FAMILY, SEEN, UNSEEN, epochs=1, judge=HASTY, progress=False
    )
    for part, old in zip((model, encoder), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())
    ends = [course.pair.model_part_0.weight for course in found.courses.values()]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations([model.weight, *ends], 2))


def test_a_route_takes_the_same_course_alone_as_after_others():
    torch.manual_seed(0)
    both = trained(routes={"am": routes.AMORTIZED, "em": routes.EM}, epochs=2, moments=1)
    torch.manual_seed(0)
    alone = trained(routes={"em": routes.EM}, epochs=2, moments=1)
    for ours, theirs in zip(*(f.courses["em"].moments for f in (both, alone)), strict=True):
        assert torch.equal(ours.train.value, theirs.train.value)
        assert torch.equal(ours.optimum.value, theirs.optimum.value)


def test_parts_that_model_and_encoder_share_stay_shared():
    seen = {}

    def guide(parts):
        seen["same"] = parts.encoder is parts.model.encoder
        return guides.Amortized(parts.encoder, parts.family)

    model, encoder = start()
    model.encoder = encoder
    named = {"one": routes.Route(guide)}
    compare_training(
        *(model, encoder, FAMILY, SEEN, UNSEEN),
        **{"routes": named, "epochs": 1, "train": AS_WRITTEN, "judge": HASTY, "progress": False},
    )
    assert seen["same"]


# One clock --------------------------------------------------------------------------------------


def test_the_clock_stands_still_while_copies_are_made_and_looked_at():
    model, clock = ticking()
    named = {"amortized": routes.AMORTIZED}
    train = partial(AS_WRITTEN, batch_size=1)  # an epoch, which copies too, is not completed
    found = trained(model, routes=named, seconds=32, moments=3, train=train, clock=clock)
    assert [m.seconds for m in found.courses["amortized"].moments] == [0, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "runs"),
    [("amortized", 1), ("semi-amortized", 6), ("per datum, joint", 1), ("per datum, EM", 6)],
)
def test_a_step_of_a_route_takes_the_runs_of_the_model_that_it_must(name, runs):
    model, clock = ticking()
    named, train = {name: routes.ROUTES[name]}, partial(AS_WRITTEN, batch_size=1)
    found = trained(model, routes=named, seconds=36 * runs, moments=2, train=train, clock=clock)
    _, earlier, later = found.courses[name].moments
    assert later.seconds - earlier.seconds == runs * (later.steps - earlier.steps)
    assert later.steps > earlier.steps > 0


def test_a_route_ends_by_epochs_where_they_come_first_and_its_end_is_looked_at():
    train = partial(AS_WRITTEN, batch_size=10)
    found = trained(epochs=3, seconds=1e9, train=train, clock=itertools.count().__next__)
    for course in found.courses.values():
        assert [m.steps for m in course.moments] == [0, 12]
        assert 0 < course.moments[-1].seconds < 1e9


def test_compiling_takes_none_of_the_time_where_nothing_is_compiled():
    assert [course.compiling for course in short().courses.values()] == [0.0] * 4


# What is told -----------------------------------------------------------------------------------


def test_rows_a_datum_have_no_bound_of_their_own_on_unseen_data():
    last = {name: course.moments[-1] for name, course in short().courses.items()}
    assert [m.unseen is None for m in last.values()] == [False, False, True, True]
    for m in last.values():
        assert [len(m.train.value), len(m.optimum.value)] == [len(SEEN), len(UNSEEN)]


def test_a_part_of_the_data_is_looked_at_under_its_own_rows():
    named = {"rows": routes.JOINT}
    settings = {"routes": named, "epochs": 2, "moments": 1, "particles": 4000}
    looked_at = [
        trained(examined=n, **settings).courses["rows"].moments[-1].train for n in (40, 5)
    ]
    values = [each.value[:5] for each in looked_at]
    error = torch.hypot(*(each.stderr[:5] for each in looked_at))
    assert ((values[0][:5] - values[1]) / error).abs().max() < 5


def test_the_table_and_the_file_say_what_the_courses_hold(tmp_path):
    found = short()
    moments = [(n, m) for n, course in found.courses.items() for m in course.moments]
    lines = str(found).splitlines()
    for (name, m), line in zip(moments, lines[1:], strict=False):
        means = [float(cell.split(" +-")[0].split()[-1]) for cell in line.split(" +- ")[:-1]]
        told = [each.value.mean().item() for each in m.estimates().values() if each is not None]
        assert line.startswith(name)
        assert means == pytest.approx(told, abs=1e-3)
    found.to_csv(tmp_path / "courses.csv")
    rows = list(csv.DictReader((tmp_path / "courses.csv").read_text().splitlines()))
    assert [row["route"] for row in rows] == [name for name, _ in moments]
    for (_, m), row in zip(moments, rows, strict=True):
        assert float(row["optimum"]) == pytest.approx(m.optimum.value.mean().item(), rel=1e-5)
        assert (row["unseen"] == "") == (m.unseen is None)


def test_the_figure_has_a_point_a_moment_of_training_and_says_which_bound_it_is():
    found = short()
    seen, unseen = found.figure().axes
    assert "L[q] of the route" in seen.get_title("left")
    assert "L[q*]" in unseen.get_title("left")
    for axes, kind in ((seen, "train"), (unseen, "optimum")):
        for name, course in found.courses.items():
            (line,) = [each for each in axes.get_lines() if each.get_label() == name]
            x, y = line.get_data()
            moments = course.moments[1:]
            assert x.tolist() == [m.seconds for m in moments]
            assert y == pytest.approx([m.estimates()[kind].mean()[0] for m in moments])


def test_the_lead_of_a_model_is_paired():
    found = short()
    first, other = (found.courses[n].moments[-1].log_evidence.value for n in ("amortized", EM))
    assert torch.equal(found.gain(EM, "amortized"), other - first)
    assert f"{(other - first).mean():+.3f}" in str(found).splitlines()[-1]


EM = "per datum, EM"


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"seconds": 0}, {"epochs": 0}, {"moments": 0}, {"examined": 1}]
)
def test_numbers_out_of_range_are_refused_with_what_was_given(settings):
    with pytest.raises(ValueError, match=rf"seconds > 0.*; got .*{next(iter(settings.values()))}"):
        trained(**settings)


@pytest.mark.parametrize("named", [{}, [routes.EM], {"em": guides.PerDatapoint}])
def test_what_are_no_routes_is_refused(named):
    with pytest.raises(TypeError, match=r"bayesvae\.routes by name; got"):
        trained(routes=named)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="a model with parameters; got Identity"):
        compare_training(nn.Identity(), nn.Linear(5, 4), FAMILY, SEEN, UNSEEN)


def test_a_mistake_is_told_with_the_route_that_it_is_of():
    model, _ = start()
    with pytest.raises(ValueError, match=r"Route .amortized.: .*the network gives"):
        compare_training(model, nn.Linear(5, 3), FAMILY, SEEN, UNSEEN, progress=False)
