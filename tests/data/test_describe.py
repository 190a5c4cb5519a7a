"""Data are called what they are."""

import numpy as np
import pytest
import torch

from bayesvae import data

GREY = torch.tensor([0.0, 1.0, 0.25, 1.0]).expand(3, 4)
CASES = {
    "bits": (torch.eye(4), "binary", "4 columns of 0 and 1: binary"),
    "bits as bytes": (torch.eye(4).byte(), "binary", "4 columns of 0 and 1: binary"),
    "zeros": (torch.zeros(2, 1), "binary", "1 column of 0 and 1: binary; 1 of them constant"),
    "grey": (
        torch.cat([GREY, torch.zeros(1, 4)]).reshape(4, 1, 2, 2), "grey",
        "1 x 2 x 2 images in [0, 1], 19 % strictly inside: grey; 1 of them constant",
    ),
    "hardly grey": (
        torch.cat([torch.eye(300), torch.eye(300)[:1] / 2]), "grey",
        "300 columns in [0, 1], under 1 % strictly inside: grey",
    ),
    "counts": (
        torch.arange(4000).reshape(2, 2000), "whole",
        "2,000 columns of whole numbers from 0 to 3,999: counts or levels",
    ),
    "signed": (torch.tensor([[-1], [1]]), "whole", "1 column of whole numbers from -1 to 1"),
    "numbers": (torch.tensor([1.0, -2.0]), "whole", "1 column of whole numbers from -2 to 1"),
    "real": (
        torch.tensor([[0.0013, 289.0], [3, 4]]), "real",
        "2 columns of real numbers from 0.0013 to 289",
    ),
    "just beyond grey": (
        torch.tensor([[0.5], [0.0], [1.001]]), "real", "1 column of real numbers from 0 to 1.001"
    ),
    "array": (np.eye(4).reshape(4, 2, 2), "binary", "2 x 2 arrays of 0 and 1: binary"),
    "on disk": (
        data.Mapped(np.arange(8, dtype="u1").reshape(4, 2), divide=7), "grey",
        "2 columns in [0, 1], 75 % strictly inside: grey",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_kind_of_numbers_is_told_by_their_values(name):
    x, kind, text = CASES[name]
    described = data.describe(x)
    assert described.kind == kind
    assert described.text.startswith(text)
    values = torch.as_tensor(np.asarray(x)) if not isinstance(x, data.Mapped) else x.read()
    assert (described.low, described.high) == (values.min(), values.max())
    assert described.inside == ((values > 0) & (values < 1)).double().mean()


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: data.Mapped(x.numpy())])
def test_of_many_rows_some_from_all_over_are_judged_and_no_others_read(kind):
    x = torch.zeros(1000, 2)
    x[999, 1] = 7
    x[500, 0] = torch.nan if kind(x) is not x else 0
    described = data.describe(kind(x), limit=20)
    assert described.high == 7, "the end of the data has to be looked at too"
    assert described.text.endswith("; 1 of them constant (judged by 10 of 1,000 rows)")


@pytest.mark.parametrize(
    ("count", "words"), [(1, "; only 1 row, too few"), (9, "; only 9 rows, too few"), (10, "")]
)
def test_data_turned_on_their_side_are_met_by_their_few_rows(count, words):
    text = data.describe(torch.randn(count, 3000)).text
    assert (words in text, "only" in text) == (True, count < 10)


def test_misuse_is_answered_in_words():
    for x, words in ((torch.zeros(0, 2), "got N = 0"), (torch.tensor([torch.nan]), "finite")):
        with pytest.raises(ValueError, match=words):
            data.describe(x)
    with pytest.raises(ValueError, match="limit >= 1; got 0"):
        data.describe(torch.zeros(2, 2), limit=0)
