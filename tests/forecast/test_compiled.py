"""The step in C: the network's own numbers, the same bits from every build."""

import pickle
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from forecast import compiled as module
from forecast.architecture import SFNOConfig
from forecast.builds import library
from forecast.checkpoint import load_checkpoint
from forecast.compiled import compiled, fits
from forecast.latent import LatentNoise
from forecast.neural import NeuralForecaster
from forecast.sfno import SFNO
from tests.forecast.conftest import CHANNELS, TIMESTEP

pytestmark = pytest.mark.skipif(library() is None, reason="not compiled for this processor")

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
BUILDS = [name for name in ("avx2", "avx512") if library(name) is not None]
PLAIN = SFNOConfig(
    channels=2,
    statics=1,
    grid=Grid("legendre-gauss", 16, 32),
    inner_grid=Grid("legendre-gauss", 12, 24),
    degrees=11,
    embed=32,
    blocks=2,
    scalars=16,
    gradients=16,
    hidden=32,
)
SIZES = {
    "plain": PLAIN,
    "even number of degrees": replace(PLAIN, degrees=10),
    "more channels than a vector holds": replace(PLAIN, channels=18),
    "equator and poles": replace(PLAIN, grid=Grid("equiangular", 19, 36)),
    "cells of an even number of circles": replace(PLAIN, grid=Grid("equiangular-cells", 18, 36)),
    "equator inside": replace(PLAIN, inner_grid=Grid("legendre-gauss", 13, 24)),
    "no gradients": replace(PLAIN, gradients=0),
    "wide": replace(PLAIN, embed=112, scalars=48, hidden=96),
    "noise": replace(PLAIN, latent_lengths_km=(1000.0, 3000.0)),
}


def network_of(sizes: SFNOConfig) -> SFNO:
    """A network none of whose weights is zero or one."""
    statics = IsotropicNoise(sizes.grid, GaussianCorrelation(3000.0), sizes.degrees - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        made = SFNO(sizes, statics.draw(Key(5)))
        for block in made.blocks:
            torch.nn.init.normal_(block.norm.norm.weight, mean=1.0, std=0.2)
            torch.nn.init.normal_(block.norm.norm.bias, std=0.2)
            if block.norm.modulation is not None:
                torch.nn.init.normal_(block.norm.modulation.weight, std=0.3)
        torch.nn.init.normal_(made.decoder.bias, std=0.1)
    return made


def inputs_of(sizes: SFNOConfig) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rough fields, power at every degree, and noise if the network takes any."""
    rng = torch.Generator().manual_seed(6)
    fields = torch.randn(1, sizes.channels, *sizes.grid.shape, generator=rng)
    return fields, LatentNoise(sizes).draw(Key(2), (3,)) if sizes.latents else None


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_step_is_the_network_in_double_precision_but_for_rounding(sizes, build):
    network = network_of(sizes)
    fields, noise = inputs_of(sizes)
    with torch.inference_mode():
        found = compiled(network, build)(fields, noise)
        exact = network.double()(fields.double(), None if noise is None else noise.double())
    assert (found - exact).norm() < 2e-6 * exact.norm()


@pytest.mark.parametrize("name", ["sfno-a", "sfno-stochastic"])
def test_shipped_networks_are_stepped_by_it(name):
    forecaster = load_checkpoint(SAMPLES / "checkpoints" / name)
    network = forecaster.network
    fields, noise = inputs_of(network.config)
    with torch.inference_mode():
        found, expected = forecaster._change(fields, noise), network(fields, noise)
    assert forecaster._change is not network
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert not torch.equal(found, expected)


@pytest.mark.skipif(len(BUILDS) < 2, reason="this processor runs one build")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_builds_give_the_same_bits(sizes):
    network, (fields, noise) = network_of(sizes), inputs_of(sizes)
    first, second = (compiled(network, build)(fields, noise) for build in BUILDS)
    assert torch.equal(first, second)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_memory_is_written_before_it_is_read_and_nowhere_else(sizes, monkeypatch):
    step, (fields, noise) = compiled(network_of(sizes)), inputs_of(sizes)
    expected, beyond = step(fields, noise), 64
    poisoned = []

    def poison(count: int, dtype: torch.dtype, device: str) -> torch.Tensor:
        assert (dtype, device) == (torch.float32, "cpu")  # whatever torch's defaults are
        poisoned.append(torch.full((count + 2 * beyond,), torch.nan))
        return poisoned[0][beyond:-beyond]

    monkeypatch.setattr(module.torch, "empty", poison)
    assert torch.equal(step(fields, noise), expected)
    assert poisoned[0][:beyond].isnan().all()
    assert poisoned[0][-beyond:].isnan().all()


def test_what_it_is_given_may_lie_in_memory_in_any_way():
    sizes = SIZES["noise"]
    step, (fields, noise) = compiled(network_of(sizes)), inputs_of(sizes)
    turned = fields.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    late = noise.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert torch.equal(step(turned, late), step(fields, noise))


@pytest.mark.parametrize(
    "sizes",
    [
        replace(PLAIN, embed=24),
        replace(PLAIN, scalars=8),
        replace(PLAIN, gradients=8),
        replace(PLAIN, hidden=48),
        replace(PLAIN, grid=Grid("legendre-gauss", 16, 30)),
        replace(PLAIN, blocks=0),
    ],
)
def test_other_sizes_are_stepped_by_torch(sizes, scales):
    assert not fits(sizes)
    network = network_of(sizes)
    forecaster = NeuralForecaster(network, scales, CHANNELS, sizes.grid, TIMESTEP)
    assert forecaster._change is network


def test_what_c_would_read_wrongly_is_refused():
    sizes = SIZES["noise"]
    step, (fields, noise) = compiled(network_of(sizes)), inputs_of(sizes)
    wrong = [
        (fields.double(), noise),
        (fields.expand(2, -1, -1, -1), noise),
        (fields[:, :1], noise),
        (fields.mT, noise),
        (fields, noise.double()),
        (fields, noise[..., :1]),
        (fields.to("meta"), noise),
    ]
    for given in wrong:
        with pytest.raises(ValueError, match="was given, expected"):
            step(*given)


@pytest.mark.parametrize("copied", [deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_forecaster_that_has_stepped_can_be_copied(copied):
    forecaster = load_checkpoint(SAMPLES / "checkpoints" / "sfno-a")
    fields, noise = inputs_of(forecaster.network.config)
    expected = forecaster._change(fields, noise)
    assert torch.equal(copied(forecaster)._change(fields, noise), expected)


def test_batches_and_double_precision_are_stepped_by_torch(scales):
    network = network_of(PLAIN)
    batches = NeuralForecaster(network, scales, CHANNELS, PLAIN.grid, TIMESTEP, micro_batch=2)
    assert batches._change is network
    assert compiled(network) is not None
    assert compiled(network.double()) is None
