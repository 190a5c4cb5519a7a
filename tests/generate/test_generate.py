"""Pairs run forwards: against closed forms, and over every pair of the catalog."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import CATALOG, FEATURES, LATENTS, SIZE, layered, per_datapoint, vae
from linear_gaussian import (
    SharedMean,
    assert_same,
    contents,
    diagonal_optimum,
    drawn,
    guided,
    rotated,
    shifted,
    z_scores,
)
from torch import nn

from bayesvae import Pair, families, generate
from bayesvae.pairs import ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}
MANY = 4000


# Pairs whose only plate is the data's; the other one has a refusal.
SHOWN = [name for name in CATALOG if name != "by hand, extra plate"]


@pytest.fixture(params=SHOWN)
def case(request):
    return CATALOG[request.param]()


@pytest.fixture
def data(case):
    return case.x, case.index


# Closed forms --------------------------------------------------------------------------------


def decoded(model, z):
    return (z @ model.weight.T + model.loc).detach()


def test_codes_of_ppca_are_its_posterior_means():
    model = rotated()
    x = drawn(model, 7)
    codes = generate.codes(ppca(model), x)["z"]
    torch.testing.assert_close(codes, model.posterior(x).mean.detach(), **EXACT)


def test_drawn_codes_have_the_moments_of_the_guide():
    model = rotated()
    x = drawn(model, 1)
    z = generate.codes(ppca(model), x.expand(MANY, -1), draw=True)["z"]
    q = model.posterior(x)
    assert z_scores(z, q.mean[0]).abs().max() < 4.5
    centred = z - q.mean[0]
    products = centred[:, :, None] * centred[:, None]
    assert z_scores(products, q.covariance_matrix[0]).abs().max() < 4.5


def test_means_and_reconstructions_of_ppca_are_affine():
    model = rotated()
    x, z = drawn(model, 7), torch.randn(7, 2)
    torch.testing.assert_close(generate.means(ppca(model), {"z": z}, (5,)), decoded(model, z))
    expected = decoded(model, model.posterior(x).mean)
    torch.testing.assert_close(generate.reconstructions(ppca(model), x), expected, **EXACT)


def test_samples_of_ppca_have_its_moments_and_belong_together():
    """Catches observations taken for draws, and means of other latents than those returned."""
    model = rotated()
    drawn_here = generate.samples(ppca(model), MANY, (5,))
    z = drawn_here.latents["z"]
    torch.testing.assert_close(drawn_here.mean, decoded(model, z), **EXACT)
    assert z_scores(z, 0.0).abs().max() < 4.5
    assert z_scores(z**2, 1.0).abs().max() < 4.5
    centred = drawn_here.draw - model.loc
    covariance = model.weight @ model.weight.T + model.scale**2 * torch.eye(5)
    products = centred[:, :, None] * centred[:, None]
    assert z_scores(products.detach(), covariance.detach()).abs().max() < 4.5


def test_interpolations_of_ppca_are_straight_lines_between_reconstructions():
    model = rotated()
    x, y = drawn(model, 3), drawn(model, 3, seed=2)
    path = generate.interpolations(ppca(model), x, y, steps=5)
    ends = [generate.reconstructions(ppca(model), end) for end in (x, y)]
    expected = torch.stack([torch.lerp(*ends, share) for share in (0, 0.25, 0.5, 0.75, 1)], 1)
    torch.testing.assert_close(path, expected, **EXACT)


def test_traversals_of_ppca_move_one_latent_along_its_column():
    """Catches a second entry that moves along, and activities in another order than the rows."""
    model = rotated()
    x = drawn(model, 50)
    found = generate.traversals(ppca(model), x, steps=3, reach=2.0)
    codes = model.posterior(x).mean.detach()
    activity, dims = codes.var(0, correction=0).sort(descending=True)
    torch.testing.assert_close(found.activity, activity, **EXACT)
    assert found.dims.tolist() == dims.tolist()
    assert found.values.tolist() == [-2.0, 0.0, 2.0]
    for row, dim in enumerate(dims):
        column = model.weight[:, dim].detach()
        for step in found.mean[row].diff(dim=0):
            torch.testing.assert_close(step / step.norm(), column / column.norm(), **EXACT)
            assert step.norm() == pytest.approx(2.0 * column.norm().item(), rel=0.1)


def test_traversals_keep_to_the_limit():
    found = generate.traversals(ppca(rotated()), drawn(rotated(), 5), steps=4, limit=1)
    assert found.mean.shape == (1, 4, 5)
    assert found.activity.shape == found.dims.shape == (1,)


def test_prior_moments_are_those_of_the_prior():
    loc, scale = generate.prior_moments(ppca(rotated()), "z", (5,), count=MANY)
    assert (loc * math.sqrt(MANY)).abs().max() < 4.5
    assert ((scale - 1) * math.sqrt(2 * MANY)).abs().max() < 4.5


def grid_of(pair, x):
    first, second = torch.linspace(-6, 6, 121), torch.linspace(-7, 7, 141)
    return generate.posterior_grid(pair, x, first, second, at_once=1000)


def test_the_grid_integrates_to_the_evidence_and_the_guide_to_one():
    model = rotated()
    x = drawn(model, 3)
    grid = grid_of(shifted(model, shift=0.2, widen=1.2), x)
    cell = math.log((grid.first[1] - grid.first[0]) * (grid.second[1] - grid.second[0]))
    total = grid.log_joint.flatten(1).logsumexp(1) + cell
    torch.testing.assert_close(total, model.log_evidence(x).detach(), rtol=0, atol=1e-6)
    total = grid.log_guide.flatten(1).logsumexp(1) + cell
    torch.testing.assert_close(total, torch.zeros(3), rtol=0, atol=1e-6)


def test_the_grid_has_its_first_coordinate_along_the_columns():
    model = rotated()
    x = drawn(model, 3)
    grid = grid_of(shifted(model), x)
    z = torch.stack([grid.first[30], grid.second[90]])
    q = diagonal_optimum(model, x)
    torch.testing.assert_close(grid.log_guide[:, 90, 30], q.log_prob(z).detach(), **EXACT)
    joint = model.posterior(x).log_prob(z) + model.log_evidence(x)
    torch.testing.assert_close(grid.log_joint[:, 90, 30], joint.detach(), **EXACT)


# Every pair ----------------------------------------------------------------------------------


def test_codes_have_a_row_a_datum_and_leave_the_pair_alone(case, data):
    case.pair.find_parameters(*data)
    before = contents(case.pair)
    for draw in (False, True):
        codes = generate.codes(case.pair, data, draw=draw)
        assert codes
        assert all(len(value) == len(case.x) for value in codes.values())
        assert not any(value.requires_grad for value in codes.values())
    assert_same(before, contents(case.pair))


def test_codes_are_those_of_single_data_whatever_the_batch(case, data):
    torch.manual_seed(0)
    together = generate.codes(case.pair, data)
    for row in range(len(case.x)):
        part = case.x[row : row + 1], case.index[row : row + 1]
        for name, value in generate.codes(case.pair, part).items():
            torch.testing.assert_close(value[0], together[name][row], **EXACT)


def test_samples_look_like_data(case):
    event = case.x.shape[1:]
    found = generate.samples(case.pair, 5, event)
    assert found.mean.shape == found.draw.shape == (5, *event)
    codes = generate.codes(case.pair, (case.x, case.index))
    assert {n: v.shape[1:] for n, v in found.latents.items()} == {
        n: v.shape[1:] for n, v in codes.items()
    }
    if set(case.x.unique().tolist()) <= {0.0, 1.0, 2.0}:
        assert torch.equal(found.draw, found.draw.round())


def test_interpolations_begin_and_end_at_the_reconstructions(case):
    """Catches shared latents drawn anew, and later layers left behind at one end."""
    ends = [(case.x[:3], case.index[:3]), (case.x[3:], case.index[3:])]
    path = generate.interpolations(case.pair, *ends, steps=4)
    assert path.shape == (3, 4, *case.x.shape[1:])
    for place, end in ((0, ends[0]), (-1, ends[1])):
        reconstruction = generate.reconstructions(case.pair, end)
        torch.testing.assert_close(path[:, place], reconstruction, **EXACT)


def test_means_are_of_the_latents_given(case, data):
    codes = generate.codes(case.pair, data)
    shared = generate.means(case.pair, codes, case.x.shape[1:])
    if not case.shared:
        torch.testing.assert_close(shared, generate.reconstructions(case.pair, data), **EXACT)
    turned = {name: value.flip(0) for name, value in codes.items()}
    torch.manual_seed(0)
    first = generate.means(case.pair, codes, case.x.shape[1:])
    torch.manual_seed(0)
    second = generate.means(case.pair, turned, case.x.shape[1:])
    torch.testing.assert_close(first, second.flip(0), **EXACT)


@pytest.mark.parametrize("name", ["ppca amortized", "by hand, shared latent", "prior Vamp"])
def test_a_seed_gives_the_same_samples(name):
    pair = CATALOG[name]().pair
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(generate.samples(pair, 4, (FEATURES,)))
    assert torch.equal(found[0].draw, found[1].draw)


# Several, shared, differently named, and free latents --------------------------------------------


def test_codes_of_layers_are_each_the_mean_given_the_one_below():
    """Catches upper layers coded from a draw of the lower."""
    case = layered((3, 2))
    lower, upper = case.pair.guide_part_1.posteriors
    codes = generate.codes(case.pair, case.x)
    first = lower.posterior(case.x).mean
    torch.testing.assert_close(codes["z1"], first.detach(), **EXACT)
    torch.testing.assert_close(codes["z2"], upper.posterior(first).mean.detach(), **EXACT)


def test_traversals_of_layers_move_the_latent_next_to_the_data():
    case = layered((3, 2))
    found = generate.traversals(case.pair, case.x, steps=4)
    assert found.mean.shape == (3, 4, FEATURES)
    activity = generate.codes(case.pair, case.x)["z1"].var(0, correction=0)
    torch.testing.assert_close(found.activity, activity[found.dims], **EXACT)


class Named(nn.Module):
    """Sites of other names, x flattened inside, several observations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 6))

    def model(self, x):
        with pyro.plate("data", len(x)):
            code = pyro.sample("code", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("size", dist.Normal(code.sum(-1), 1.0), obs=x.flatten(1).sum(1))
            pixels = dist.Normal(code @ self.weight, 0.1).to_event(1)
            pyro.sample("pixels", pixels, obs=x.flatten(1))

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("code", dist.Normal(x.flatten(1)[:, :2], 0.5).to_event(1))


def test_pairs_with_sites_of_other_names_and_shapes_work():
    programs = Named()
    pair, x = Pair(programs.model, programs.guide), torch.randn(4, 2, 3)
    codes = generate.codes(pair, x)
    assert torch.equal(codes["code"], x.flatten(1)[:, :2])
    expected = (codes["code"] @ programs.weight).detach().reshape(4, 2, 3)
    torch.testing.assert_close(generate.reconstructions(pair, x), expected, **EXACT)
    assert generate.samples(pair, 5, (2, 3)).draw.shape == (5, 2, 3)
    axis = torch.linspace(-1, 1, 4)
    assert generate.posterior_grid(pair, x, axis, axis).log_joint.shape == (4, 4, 4)


def test_shared_latents_stay_at_the_means_of_their_guide():
    """Catches codes and reconstructions under another draw of what all data share."""
    programs = SharedMean(0.7)
    pair, x = Pair(programs.model, programs.guide), torch.randn(6)
    weight = programs.b**-2 / (programs.a**-2 + programs.b**-2)
    expected = weight * x + (1 - weight) * 0.7
    codes = generate.codes(pair, x)
    assert list(codes) == ["z"]
    torch.testing.assert_close(codes["z"], expected, **EXACT)
    torch.testing.assert_close(generate.reconstructions(pair, x), expected, **EXACT)


def test_the_grid_of_a_pair_with_shared_latents_is_given_their_means():
    case = CATALOG["by hand, shared latent"]()
    axis = torch.linspace(-3, 3, 5)
    grid = generate.posterior_grid(case.pair, case.x, axis, axis)
    programs = case.pair.model_part_0
    z = torch.stack([axis[1], axis[3]])
    joint = programs.latents().log_prob(z) + programs.likelihood(z + programs.shift).log_prob(
        case.x
    )
    torch.testing.assert_close(grid.log_joint[:, 3, 1], joint.detach(), **EXACT)
    guide = programs.posterior(case.x).log_prob(z)
    torch.testing.assert_close(grid.log_guide[:, 3, 1], guide.detach(), **EXACT)


def test_free_rows_are_found_by_position():
    """Catches rows 0, 1, 2 served to data from elsewhere."""
    guide = per_datapoint(families.Normal(LATENTS))
    case = vae(guide=guide)
    loc = guide.rows[case.index, :LATENTS].detach()
    found = generate.codes(case.pair, (case.x, case.index))["z"]
    torch.testing.assert_close(found, loc, **EXACT)
    grid = generate.posterior_grid(case.pair, (case.x, case.index), torch.zeros(1), torch.zeros(1))
    expected = guide.posterior(None, case.index).log_prob(torch.zeros(LATENTS))
    torch.testing.assert_close(grid.log_guide[:, 0, 0], expected.detach(), **EXACT)


def test_a_draw_stands_in_where_no_mean_is_known():
    model, half = rotated(dim=1), torch.distributions.transforms.AffineTransform(0.0, 0.5)

    def posterior(x):
        return dist.TransformedDistribution(dist.Normal(x[:, :1], 1.0).to_event(1), [half])

    codes = generate.codes(guided(model, posterior), torch.zeros(MANY, 5))["z"]
    assert z_scores(codes**2, 0.25).abs().max() < 4.5


# Refusals ------------------------------------------------------------------------------------


REFUSALS = {
    "no samples": (
        lambda: generate.samples(ppca(rotated()), 0, (5,)),
        "samples needs count >= 1; got 0",
    ),
    "another event": (
        lambda: generate.samples(ppca(rotated()), 3, (4,)),
        r"must observe data of shape \(B, 4\)",
    ),
    "a path without an end": (
        lambda: generate.interpolations(ppca(rotated()), torch.zeros(2, 5), torch.zeros(3, 5)),
        "as many starts as ends",
    ),
    "a path of one step": (
        lambda: generate.interpolations(ppca(rotated()), torch.zeros(2, 5), torch.zeros(2, 5), 1),
        "steps >= 2; got .* 1",
    ),
    "a grid of three latents": (
        lambda: grid_of(ppca(rotated(dim=3)), torch.zeros(2, 5)),
        r"one latent of two entries; got \{'z': \(3,\)\}",
    ),
    "a grid of two layers": (
        lambda: grid_of(layered((2, 2)).pair, torch.zeros(2, FEATURES)),
        r"one latent of two entries; got \{'z1': \(2,\), 'z2': \(2,\)\}",
    ),
    "a scalar to traverse": (
        lambda: generate.traversals(
            Pair(SharedMean(0.0).model, SharedMean(0.0).guide), torch.zeros(3)
        ),
        r"needs a vector of latents a datum; 'z' has shape \(3,\)",
    ),
    "a further plate": (
        lambda: generate.codes(CATALOG["by hand, extra plate"]().pair, torch.randn(4, FEATURES)),
        r"data plate alone around them; 'z' lies in \['data', 'features'\]",
    ),
    "data without positions": (
        lambda: generate.reconstructions(
            vae(guide=per_datapoint(families.Normal(LATENTS))).pair, torch.randn(3, FEATURES)
        ),
        f"a row for each of {SIZE} data; got 3 data without their positions",
    ),
}


@pytest.mark.parametrize(("call", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_shown_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
