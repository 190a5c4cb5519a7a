"""Guides find the rows of their own data."""

import pytest
import torch
from linear_gaussian import encoder

from bayesvae import families, guides, networks

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def test_amortized_rows_are_the_networks_output():
    guide, x = encoder(), torch.randn(7, 4)
    torch.testing.assert_close(guide.family.rows(guide.posterior(x)), guide.network(x), **EXACT)


def test_amortized_refuses_a_network_of_another_width():
    guide = guides.Amortized(networks.MLP(4, (), 3), families.Normal(2))
    with pytest.raises(ValueError, match=r"rows of 4 numbers; the network gives \(7, 3\)"):
        guide.posterior(torch.zeros(7, 4))


@pytest.mark.parametrize("sparse", [False, True])
def test_per_datapoint_looks_rows_up_by_index_and_gives_no_gradient_to_others(sparse):
    guide = guides.PerDatapoint(6, families.Normal(2))
    guide.sparse = sparse
    torch.nn.init.normal_(guide.rows)
    index = torch.tensor([4, 1])
    q = guide.posterior(None, index)
    torch.testing.assert_close(guide.family.rows(q), guide.rows[index], **EXACT)
    (gradient,) = torch.autograd.grad(q.log_prob(torch.zeros(2)).sum(), guide.rows)
    assert gradient.is_sparse == sparse
    assert gradient.to_dense().any(1).nonzero().flatten().tolist() == [1, 4]


@pytest.mark.parametrize("index", [[0, 6], [-1, 2]])
def test_per_datapoint_refuses_positions_that_it_has_no_row_for(index):
    guide = guides.PerDatapoint(6, families.Normal(2))
    with pytest.raises(ValueError, match=f"rows for 6 data; got positions from {index[0]} to"):
        guide.posterior(None, torch.tensor(index))


def test_per_datapoint_asks_for_its_index():
    with pytest.raises(ValueError, match="needs `index`, the data's positions; got None"):
        guides.PerDatapoint(6, families.Normal(2)).posterior(torch.zeros(3, 4))
