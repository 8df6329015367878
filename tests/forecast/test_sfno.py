"""The network: symmetry, gradients, and its stochastic version."""

import torch

from data.key import Key
from forecast.latent import LatentNoise
from forecast.sfno import SFNO
from tests.forecast.conftest import config, seeded_network, state_of, statics


def normalised(numbers=(0, 1)):
    fields = state_of(numbers).fields
    mean, std = torch.tensor([10.0, 270.0]), torch.tensor([12.0, 15.0])
    return (fields - mean[:, None, None]) / std[:, None, None]


def test_turning_the_inputs_in_longitude_turns_the_output():
    sizes = config()
    torch.manual_seed(0)
    plain = SFNO(sizes, torch.zeros(1, *sizes.grid.shape))
    fields = normalised()
    shift = 3  # a whole number of points on both grids
    turned = plain(torch.roll(fields, shift, dims=-1))
    torch.testing.assert_close(turned, torch.roll(plain(fields), shift, -1), atol=1e-5, rtol=1e-4)


def test_turning_inputs_and_statics_together_turns_the_output(network):
    turned_statics = torch.roll(statics(), 6, dims=-1)
    other = SFNO(network.config, turned_statics)
    other.load_state_dict(network.state_dict())
    fields = normalised()
    found = other(torch.roll(fields, 6, dims=-1))
    torch.testing.assert_close(found, torch.roll(network(fields), 6, -1), atol=1e-5, rtol=1e-4)


def test_statics_are_seen(network):
    other = SFNO(network.config, torch.zeros_like(statics()))
    other.load_state_dict(network.state_dict())
    assert not torch.allclose(other(normalised()), network(normalised()), atol=1e-3)


def test_output_has_no_power_beyond_the_truncation(network):
    output = network(normalised())
    truncated = network.synthesise_data(network.analyse_data(output.permute(3, 2, 0, 1)))
    torch.testing.assert_close(truncated.permute(2, 3, 1, 0), output, atol=1e-5, rtol=1e-4)


def test_gradients_are_finite_and_reach_every_weight(stochastic_network):
    noise = LatentNoise(stochastic_network.config).draw(Key(2), (0, 1))
    stochastic_network(normalised(), noise).square().mean().backward()
    for name, weight in stochastic_network.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


def test_retrofitted_network_is_at_first_exactly_the_deterministic_one(network):
    sizes = config((1000.0, 3000.0))
    retrofit = SFNO(sizes, statics())
    retrofit.load_state_dict(retrofit.state_dict() | network.state_dict())
    noise = LatentNoise(sizes).draw(Key(2), (0, 1))
    assert torch.equal(retrofit(normalised(), noise), network(normalised()))


def test_noise_changes_what_a_trained_stochastic_network_says(stochastic_network):
    noise = LatentNoise(stochastic_network.config).draw(Key(2), (0, 1))
    with_noise = stochastic_network(normalised(), noise)
    assert (with_noise - stochastic_network(normalised())).abs().max() > 0.01


def test_latent_noise_has_unit_variance_at_every_latitude():
    sizes = config((1000.0, 3000.0))
    network = seeded_network(sizes)
    draws = LatentNoise(sizes).draw(Key(4), tuple(range(400)))
    fields = network.synthesise(draws)
    variance = fields.square().mean(dim=(0, 2, 3))
    assert (variance - 1).abs().max() < 0.1


def test_latent_noise_of_a_member_is_its_own():
    source = LatentNoise(config((1000.0,)))
    together, alone = source.draw(Key(4), (3, 8, 5)), source.draw(Key(4), (8,))
    assert torch.equal(together[:, :, :, 1:2], alone)
