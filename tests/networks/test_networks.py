"""Networks see one datum at a time, whatever leads its axes."""

import pytest
import torch

from bayesvae import networks

EXACT = {"rtol": 1e-10, "atol": 1e-10}


NETWORKS = {
    "MLP": (lambda: networks.MLP(4, (8, 8), 3), (4,), (3,)),
    "MLP, affine, shapes": (lambda: networks.MLP((2, 3), (), (3, 2, 2)), (2, 3), (3, 2, 2)),
    "ConvEncoder": (lambda: networks.ConvEncoder((2, 8, 8), 6, (4, 5)), (2, 8, 8), (6,)),
    "ConvEncoder 5x7": (lambda: networks.ConvEncoder((1, 5, 7), (2, 3)), (1, 5, 7), (2, 3)),
    "ConvEncoder 28x28": (lambda: networks.ConvEncoder((1, 28, 28), 6), (1, 28, 28), (6,)),
    "ConvDecoder": (lambda: networks.ConvDecoder(3, (2, 8, 8), (5, 4)), (3,), (2, 8, 8)),
    "ConvDecoder 5x7": (lambda: networks.ConvDecoder(3, (1, 5, 7)), (3,), (1, 5, 7)),
    "ConvDecoder 7x7": (lambda: networks.ConvDecoder((3, 1), (1, 7, 7)), (3, 1), (1, 7, 7)),
    "ConvDecoder 28x28": (lambda: networks.ConvDecoder(3, (1, 28, 28)), (3,), (1, 28, 28)),
    "ConvDecoder 1x1": (lambda: networks.ConvDecoder(3, (2, 1, 1)), (3,), (2, 1, 1)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, inputs, outputs = NETWORKS[request.param]
    return make(), inputs, outputs


@pytest.mark.parametrize("leading", [(), (3,), (2, 1, 3)])
def test_leading_dims_do_not_change_what_a_network_says_of_a_row(network, leading):
    net, inputs, outputs = network
    x = torch.randn(*leading, *inputs)
    alone = torch.stack([net(row) for row in x.reshape(-1, *inputs)])
    torch.testing.assert_close(net(x), alone.reshape(*leading, *outputs), **EXACT)


def test_rows_of_a_batch_do_not_influence_each_other(network):
    net, inputs, _ = network
    x = torch.randn(3, *inputs, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[1].square().sum(), x)
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


def test_every_parameter_of_a_network_matters(network):
    net, inputs, _ = network
    gradients = torch.autograd.grad(net(torch.randn(8, *inputs)).square().sum(), net.parameters())
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (lambda: networks.MLP(4, (), 2), (3, 5), r"MLP takes .* \(\*, 4\); got \(3, 5\)"),
        (lambda: networks.MLP((2, 3), (), 2), (3,), r"MLP takes .* \(\*, 2, 3\); got \(3,\)"),
        (lambda: networks.MLP((2, 3), (), 2), (4, 6), r"MLP takes .* got \(4, 6\)"),
        (lambda: networks.ConvEncoder((1, 8, 8), 2), (4, 8, 8), r"ConvEncoder .*got \(4, 8, 8\)"),
        (lambda: networks.ConvEncoder((1, 8, 8), 2), (4, 64), r"ConvEncoder .*got \(4, 64\)"),
        (lambda: networks.ConvDecoder(3, (1, 8, 8)), (4, 2), r"ConvDecoder .*got \(4, 2\)"),
    ],
)
def test_another_event_shape_is_refused_and_named(net, given, message):
    with pytest.raises(ValueError, match=message):
        net()(torch.zeros(given))


def test_data_logits_are_the_logits_of_the_mean_and_finite_where_no_pixel_ever_lights():
    x = torch.bernoulli(torch.full((200, 1, 3, 3), 0.3))
    x[:, 0, 0, 0], x[:, 0, 2, 2] = 0.0, 1.0
    logits = networks.data_logits(x)
    torch.testing.assert_close(logits.sigmoid(), x.mean(0).clamp(1e-3, 1 - 1e-3), **EXACT)


@pytest.mark.parametrize("make", [networks.MLP, networks.ConvDecoder])
def test_output_bias_starts_where_it_is_told(make):
    bias = torch.randn(2, 5, 5)
    args = (3, (4,), (2, 5, 5)) if make is networks.MLP else (3, (2, 5, 5), (4,))
    torch.manual_seed(1)
    with_bias = make(*args, output_bias=bias)
    torch.manual_seed(1)
    without = make(*args)
    last = without.layers[-1] if make is networks.MLP else without
    with torch.no_grad():
        last.bias.zero_()
    z = torch.randn(4, 3)
    torch.testing.assert_close(with_bias(z) - without(z), bias.expand(4, 2, 5, 5), **EXACT)
