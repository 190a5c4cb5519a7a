"""Every batch knows where its data came from, and binarises grey levels alone."""

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from bayesvae import data

N = 10
# Each datum carries its position in its values.
X = torch.arange(N, dtype=torch.float64).reshape(N, 1, 1, 1).expand(N, 1, 2, 2).contiguous()


class Labelled(Dataset):
    """Items are (image, label), and the labels are such as no tensor can hold."""

    def __init__(self, size=N):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return X[i], None


class Stream(IterableDataset):
    def __len__(self):
        return N

    def __iter__(self):
        yield from X


class Pictures(Labelled):
    def __getitem__(self, i):
        return torchvision.transforms.ToPILImage()(X[i].float()), i


def stacked_images(items):
    return [torch.stack([x for x, _ in items]), "labels"]


def read_only_array():
    array = X.numpy().copy()
    array.flags.writeable = False
    return array


SOURCES = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "read-only array": read_only_array,
    "Loader": lambda: data.Loader(X, 3, shuffle=True),
    "TensorDataset": lambda: TensorDataset(X, torch.zeros(N)),
    "Dataset with labels": Labelled,
    "Subset": lambda: Subset(TensorDataset(torch.cat([X - N, X])), range(N, 2 * N)),
    "DataLoader": lambda: DataLoader(Labelled(), batch_size=3),
    "DataLoader, shuffled": lambda: DataLoader(Labelled(), batch_size=3, shuffle=True),
    "DataLoader of TensorDataset": lambda: DataLoader(TensorDataset(X), 3, shuffle=True),
    "DataLoader, collating": lambda: DataLoader(Labelled(), 3, True, collate_fn=stacked_images),
    "DataLoader, batch sampler": lambda: DataLoader(
        Labelled(), batch_sampler=BatchSampler(range(N - 1, -1, -1), 3, drop_last=False)
    ),
    "DataLoader, plain list of batches": lambda: DataLoader(
        Labelled(), batch_sampler=[[9, 8, 7, 6], [0, 1, 2], [5, 4], [3]]
    ),
    "DataLoader, worker": lambda: DataLoader(Labelled(), 3, True, num_workers=1),
}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]()


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
def test_positions_are_true_and_complete_whatever_shuffles_labels_or_collates(source):
    batches = data.loader(source, batch_size=3, shuffle=True)
    for _ in range(2):
        epoch = list(batches)
        x, index = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        assert len(batches) == len(epoch) == 4
        assert batches.size == N
        assert index.dtype == torch.int64
        torch.testing.assert_close(x, X[index], rtol=0, atol=0)
        assert index.sort().values.tolist() == list(range(N))


@forks
def test_sequential_forgets_the_shuffling_and_obeys_the_batch_size(source):
    batches = data.sequential(data.loader(source, shuffle=True), batch_size=4)
    assert [index.tolist() for _, index in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (len(batches), batches.size, batches.batch_size) == (3, N, 4)
    assert all(torch.equal(x, X[index]) for x, index in batches)


@forks
@pytest.mark.parametrize(("limit", "expected"), [(None, N), (1, 1), (7, 7), (99, N)])
def test_rows_stops_at_the_limit_across_batches(source, limit, expected):
    x, index = data.rows(source, limit)
    assert index.tolist() == list(range(expected))
    assert torch.equal(x, X[:expected])


def test_loader_does_not_wrap_a_loader_again(source):
    once = data.loader(source)
    assert data.loader(once, batch_size=7) is once


def test_shuffling_draws_a_fresh_order_for_each_epoch_from_the_global_stream():
    torch.manual_seed(0)
    batches = data.Loader(X, batch_size=N, shuffle=True)
    (first, second) = (next(iter(batches))[1].tolist() for _ in range(2))
    assert first != second
    torch.manual_seed(0)
    assert next(iter(batches))[1].tolist() == first


def test_a_shuffled_data_loader_keeps_the_stream_of_its_generator():
    def shuffled():
        generator = torch.Generator().manual_seed(3)
        return DataLoader(Labelled(), 3, True, generator=generator, collate_fn=stacked_images)

    plain, ours = shuffled(), data.loader(shuffled())
    for _ in range(2):
        pairs = zip(plain, ours, strict=True)
        assert all(torch.equal(expected, x) for (expected, _), (x, _) in pairs)


def test_slices_are_views_so_that_no_epoch_copies_the_data():
    for x, index in data.Loader(X, batch_size=4):
        assert x.data_ptr() == X[index[0]].data_ptr()
    assert data.rows(X, 5)[0].data_ptr() == X.data_ptr()
    for source in (X.numpy(), TensorDataset(X, X)):
        assert data.loader(source).x.data_ptr() == X.data_ptr()


def test_drop_last_drops_in_training_and_never_in_evaluation():
    batches = data.Loader(X, batch_size=4, drop_last=True)
    assert [len(x) for x, _ in batches] == [4, 4]
    assert (len(batches), batches.size) == (2, N)
    assert [len(x) for x, _ in data.sequential(batches)] == [4, 4, 2]
    assert len(data.sequential(DataLoader(Labelled(), 4, drop_last=True))) == 3


def test_sequential_leaves_the_loader_it_was_given_alone():
    batches = data.Loader(X, batch_size=4, shuffle=True, drop_last=True)
    data.sequential(batches, batch_size=2)
    assert (batches.batch_size, batches.shuffle, batches.drop_last) == (4, True, True)


def test_sequential_does_not_evaluate_data_that_a_subset_sampler_left_out():
    batches = DataLoader(Labelled(), 2, sampler=SubsetRandomSampler([7, 1, 4]))
    assert [index.tolist() for _, index in data.sequential(batches)] == [[1, 4], [7]]
    assert data.loader(batches).size == 3
    assert data.rows(batches)[1].tolist() == [1, 4, 7]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_the_dtype_is_left_alone(dtype):
    assert data.rows(X.to(dtype))[0].dtype == dtype
    assert data.rows(X.to(dtype).numpy())[0].dtype == dtype


def test_dynamic_draws_are_fresh_in_each_epoch_with_the_grey_level_as_mean():
    torch.manual_seed(0)
    grey = torch.linspace(0, 1, 11, dtype=torch.float64).expand(50, 11)
    batches = data.Loader(grey, batch_size=16, transform=torch.bernoulli)
    epochs = torch.stack([torch.cat([x for x, _ in batches]) for _ in range(100)])
    assert not torch.equal(epochs[0], epochs[1])
    assert set(epochs.unique().tolist()) == {0.0, 1.0}
    error = epochs.mean((0, 1)) - grey[0]
    stderr = (grey[0] * (1 - grey[0]) / 5000).sqrt()
    assert (error.abs() <= 4.5 * stderr).all()
    assert set(data.rows(batches)[0].unique().tolist()) == {0.0, 1.0}


def test_static_draws_depend_on_the_seed_alone_and_spare_the_global_stream():
    grey = torch.linspace(0, 1, 4000, dtype=torch.float64)
    state = torch.get_rng_state()
    x = data.static_binarisation(grey)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(data.static_binarisation(grey), x)
    assert not torch.equal(data.static_binarisation(grey, seed=1), x)
    assert x.dtype == grey.dtype
    stderr = (grey * (1 - grey)).sum().sqrt()
    assert (x - grey).sum().abs() <= 4.5 * stderr


@pytest.mark.parametrize(
    "binarise",
    [
        data.static_binarisation,
        lambda x: data.Loader(x, transform=torch.bernoulli),
    ],
)
@pytest.mark.parametrize(
    ("x", "received"),
    [
        (255 * X, "from 0.0 to 2295.0"),
        (X[:2] - 0.5, "from -0.5 to 0.5"),
        (X[:2].byte(), "torch.uint8 from 0 to 1"),
    ],
)
def test_binarising_anything_but_grey_levels_is_refused_before_training(binarise, x, received):
    with pytest.raises(ValueError, match=rf"grey levels in \[0, 1\]; got .*{received}.*x / 255"):
        binarise(x)


def test_binarising_not_a_number_is_refused():
    with pytest.raises(ValueError, match="grey levels"):
        data.static_binarisation(torch.tensor([0.5, torch.nan]))


MISUSES = {
    "no data": (lambda: data.loader(X[:0]), ValueError, "got N = 0"),
    "no event": (lambda: data.loader(torch.zeros(3, 0)), ValueError, "got N = 0"),
    "no dimension": (lambda: data.loader(torch.tensor(1.0)), ValueError, "got N = 0"),
    "empty Dataset": (lambda: data.loader(Labelled(0), 4, True), ValueError, "got N = 0"),
    "batch size": (lambda: data.loader(X, 0), ValueError, "batch_size = 0"),
    "batch size of a Dataset": (lambda: data.loader(Labelled(), 0), ValueError, "batch_size = 0"),
    "sequential": (lambda: data.sequential(data.Loader(X), 0), ValueError, "batch_size = 0"),
    "no whole batch": (
        lambda: data.Loader(X, 11, drop_last=True), ValueError, "batch_size <= N; got N = 10"
    ),
    "no whole batch of a DataLoader": (
        lambda: data.loader(DataLoader(Labelled(), 11, drop_last=True)), ValueError, "<= N"
    ),
    "no limit": (lambda: data.rows(X, 0), ValueError, "limit >= 1; got 0"),
    "NaN": (lambda: data.loader(X / X), ValueError, "finite data; got 4 values.*impute"),
    "infinity": (lambda: data.loader(np.log(X.numpy()[:1] + 1) - np.inf), ValueError, "finite"),
    "not a tensor": (lambda: data.Loader(X.numpy()), TypeError, r"got ndarray. Use loader"),
    "iterable-style": (lambda: data.loader(Stream()), TypeError, "got Stream. Gather"),
    "iterable-style DataLoader": (
        lambda: data.loader(DataLoader(Stream())), TypeError, "got Stream. Gather"
    ),
    "generator": (lambda: data.loader(x for x in X), TypeError, "got generator"),
    "Splits": (lambda: data.loader(data.digits()), TypeError, "got Splits.*splits.train"),
    "pictures": (
        lambda: next(iter(data.loader(Pictures()))), TypeError, r"got Image. .*ToTensor\(\)"
    ),
    "DataLoader of pictures": (
        lambda: data.rows(DataLoader(Pictures())), TypeError, r"got Image. .*ToTensor\(\)"
    ),
    "DataLoader without batches": (
        lambda: data.loader(DataLoader(Labelled(), batch_size=None)), ValueError, "batch_size=None"
    ),
    "nothing held out": (lambda: data.digits().hold_out(0.0), ValueError, "got 0.0 of 1437"),
    "nothing to hold out": (
        lambda: data.Splits(torch.zeros(1, 2)).hold_out(0.1), ValueError, "2 data to split; got 1,"
    ),
    "fraction too large": (lambda: data.digits().hold_out(1.0), ValueError, "got 1.0 of 1437"),
    "negative fraction": (lambda: data.digits().hold_out(-0.1), ValueError, "got -0.1"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_misuse_is_answered_in_words_that_say_what_came(misuse):
    call, error, words = MISUSES[misuse]
    with pytest.raises(error, match=words):
        call()


def test_dynamic_binarisation_draws_each_grey_level_with_its_own_probability():
    levels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).repeat(20_000, 1)
    drawn = data.dynamic_binarisation(levels)
    assert drawn.dtype == levels.dtype
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    error = (levels[0] * (1 - levels[0]) / len(levels)).sqrt()
    assert ((drawn.mean(0) - levels[0]).abs() <= 5 * error).all()


def test_a_loader_that_binarises_dynamically_refuses_what_is_no_grey_level():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        data.Loader(torch.full((4, 2), 1.5), 2, transform=data.dynamic_binarisation)
