"""The network's step in C, for one member on one core: the same function, in half the time.

``forecast/_sfno.c`` does what `forecast.sfno.SFNO` does, with the symmetries of the harmonics that
dense products leave unused, and without the memory that one operation after the other goes
through. It is compiled on installation for processors with AVX-512 and with AVX2, which give the
same bits; elsewhere, on a GPU, in training and in batches it is torch that steps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import torch

from data.grid import Grid
from data.legendre import legendre_functions, legendre_slopes
from forecast.architecture import SFNOConfig
from forecast.builds import library
from forecast.sfno import SFNO, Block
from forecast.transform import analysis_weights

_LANES = 16
_PANEL = 2 * _LANES
_BYTES = 4  # of a number


def compiled(network: SFNO, build: str | None = None) -> CompiledSFNO | None:
    """The network's step in C; None where it has none: see `fits` and `library`."""
    found, weight = library(build), network.encoder.weight
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return CompiledSFNO(network, found) if found and plain and fits(network.config) else None


def fits(config: SFNOConfig) -> bool:
    """Whether sizes are those that the compiled step takes."""
    grids = config.grid, config.inner_grid
    symmetric = all(grid.longitudes % 4 == 0 for grid in grids)
    widths = config.embed, config.scalars, config.gradients
    whole = all(width % _LANES == 0 for width in widths) and config.hidden % _PANEL == 0
    something = min(config.channels, config.embed, config.hidden, config.blocks) > 0
    return (
        symmetric
        and whole
        and something
        and 1 < config.degrees <= min(grid.longitudes for grid in grids) // 2
    )


def _structure(name: str, fields: list[tuple[str, type]]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _all(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


# As in the C file, field by field.
_Block = _structure(
    "_Block",
    _all(
        ctypes.c_void_p,
        "norm_weight norm_bias modulation filter local remote bias out out_bias",
    ),
)
_Transform = _structure(
    "_Transform",
    [
        *_all(ctypes.c_int64, "degrees longitudes latitudes"),
        *_all(ctypes.c_void_p, "quadrature scalar south east"),
        *_all(ctypes.c_void_p * 4, "into back"),
    ],
)
_Network = _structure(
    "_Network",
    [
        *_all(_Transform, "data inner"),
        *_all(ctypes.c_int64, "channels padded embed scalars gradients hidden"),
        *_all(ctypes.c_int64, "latents padded_latents blocks"),
        ("epsilon", ctypes.c_double),
        *_all(ctypes.c_void_p, "sharpening encoder fixed decoder decoder_bias block"),
    ],
)
_Work = _structure(
    "_Work",
    _all(ctypes.c_void_p, "fields here around noise waves coefficients filtered rows"),
)


class CompiledSFNO:
    """A network's step in C.

    Parameters
    ----------
    network : SFNO
        On a CPU, in float32, of sizes that `fits`. Its weights are copied.
    step : ctypes.CDLL
        What computes.
    """

    def __init__(self, network: SFNO, step: ctypes.CDLL) -> None:
        self._step = step.sfno_step
        self._step.restype = None
        self._kept: list[torch.Tensor] = []  # what the structures point to
        with torch.inference_mode():
            self._blocks = (_Block * len(network.blocks))(*map(self._block, network.blocks))
            self._network = self._pack(network)
        lengths = _lengths(self._network)
        self._size = sum(lengths)
        self._offsets = [_BYTES * start for start in accumulate(lengths[:-1], initial=0)]
        config = network.config
        self._fields = 1, config.channels, *config.grid.shape
        self._noise = config.degrees, 2, config.degrees, 1, config.latents

    def __call__(self, fields: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """As `SFNO.forward`, for a batch of one.

        Raises
        ------
        ValueError
            If it is no batch of one, of the network's sizes and in float32 on a CPU.
        """
        fields = _checked(fields, self._fields)
        noise = None if noise is None else _checked(noise, self._noise)
        change = torch.empty_like(fields)
        memory = torch.empty(self._size, dtype=torch.float32, device="cpu")
        pieces = (memory.data_ptr() + offset for offset in self._offsets)
        self._step(
            ctypes.byref(self._network),
            _address(fields),
            None if noise is None else _address(noise),
            ctypes.byref(_Work(*pieces)),
            _address(change),
        )
        return change

    def _pack(self, network: SFNO) -> ctypes.Structure:
        config, encoder = network.config, network.encoder
        padded = _padded(config.channels)
        changing, still = encoder.weight.split([3 * config.channels, network._fixed.shape[-1]], 1)
        parts = changing.unflatten(1, (3, config.channels)).permute(1, 2, 0)
        return _Network(
            data=self._transform(config.grid, config.degrees),
            inner=self._transform(config.inner_grid, config.degrees),
            channels=config.channels,
            padded=padded,
            embed=config.embed,
            scalars=config.scalars,
            gradients=config.gradients,
            hidden=config.hidden,
            latents=config.latents,
            padded_latents=_padded(config.latents),
            blocks=len(network.blocks),
            epsilon=network.blocks[0].norm.norm.eps,
            sharpening=self._keep(network._sharpening),
            encoder=self._keep(_with_rows(parts, padded)),
            fixed=self._keep(network._fixed[:, :, 0] @ still.t() + encoder.bias),
            decoder=self._keep(_with_rows(network.decoder.weight, padded).t()),
            decoder_bias=self._keep(_with_rows(network.decoder.bias[:, None], padded)),
            block=ctypes.addressof(self._blocks),
        )

    def _transform(self, grid: Grid, degrees: int) -> ctypes.Structure:
        """Harmonics of the northern half of a grid, and waves of a quarter of its circles."""
        colatitude = torch.from_numpy(np.deg2rad(90.0 - grid.latitude))
        slopes = legendre_slopes(degrees, colatitude)
        signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None, None, None]
        tables = {
            "quadrature": analysis_weights(grid, degrees),
            "scalar": legendre_functions(degrees, colatitude.cos()),
            "south": slopes[0],
            "east": signs * slopes[1],
        }
        north = (grid.latitudes + 1) // 2
        if grid.latitudes % 2:  # the equator comes as its own mirror image
            tables["quadrature"][..., north - 1] /= 2
        kept = {name: self._keep(table[..., :north]) for name, table in tables.items()}
        packed = _Transform(degrees, grid.longitudes, grid.latitudes, **kept)
        for place, (order, wave) in enumerate(_waves(grid.longitudes, degrees)):
            factor = np.where(order == 0, 1.0, 2.0)[:, None]
            packed.into[place] = self._keep(torch.from_numpy(wave / grid.longitudes))
            packed.back[place] = self._keep(torch.from_numpy((wave * factor).T))
        return packed

    def _block(self, block: Block) -> ctypes.Structure:
        packed = _Block(
            norm_weight=self._keep(block.norm.norm.weight),
            norm_bias=self._keep(block.norm.norm.bias),
            filter=self._keep(block.filter.weight),
            local=self._keep(_by_panels(block.local.weight)),
            remote=self._keep(_by_panels(block.remote.weight)),
            bias=self._keep(_by_panels(block.local.bias[:, None])),
            out=self._keep(block.out.weight.t()),
            out_bias=self._keep(block.out.bias),
        )
        if block.norm.modulation is not None:
            packed.modulation = self._keep(block.norm.modulation.weight.t())
        return packed

    def _keep(self, values: torch.Tensor) -> int:
        """The address of values in float32, which stay there as long as this object."""
        self._kept.append(values.float().contiguous().clone())
        return self._kept[-1].data_ptr()


def _waves(longitudes: int, degrees: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Orders and waves, (order, place): cosines and minus sines of even orders, then of odd ones.

    Sums and differences about quarters of the circle leave a quarter's places of each, without
    those at which it vanishes.
    """
    quarter = longitudes // 4
    for parity in (0, 1):
        order = np.arange(parity, degrees, 2)
        angle = 2 * np.pi / longitudes * np.outer(order, np.arange(quarter + 1))
        yield order, np.cos(angle)[:, : quarter + 1 - parity]
        yield order, -np.sin(angle)[:, 1 : quarter + parity]


def _lengths(network: ctypes.Structure) -> tuple[int, ...]:
    """How much of the memory for a step each of its pieces takes."""
    grids = network.data, network.inner
    places = max(grid.longitudes * grid.latitudes for grid in grids)
    latitudes = max(grid.latitudes for grid in grids) + 1
    longitudes = max(grid.longitudes for grid in grids)
    degrees = network.inner.degrees
    wide = max(
        network.embed,
        network.scalars + 2 * network.gradients,
        3 * network.padded,
        network.padded_latents,
    )
    at_a_time = network.inner.latitudes * (2 * network.embed + 2 * _PANEL + network.hidden)
    return (
        places * network.embed,
        places * wide,
        places * wide,
        places * network.padded_latents,
        2 * degrees * latitudes * wide,
        2 * degrees**2 * wide,
        2 * degrees**2 * wide,
        max((3 * longitudes + 4 * degrees) * wide, at_a_time),
    )


def _checked(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Values as C reads them, which looks at no shape."""
    found, expected = (values.dtype, values.device.type), (torch.float32, "cpu")
    if values.shape != shape or found != expected:
        raise ValueError(f"{tuple(values.shape)}, {found} was given, expected {shape}, {expected}")
    return values.contiguous()


def _address(values: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())


def _padded(count: int) -> int:
    """The next multiple of the channels that go together."""
    return -(-count // _LANES) * _LANES


def _with_rows(values: torch.Tensor, rows: int) -> torch.Tensor:
    """(..., row, column) with rows of zeros up to a count."""
    return torch.nn.functional.pad(values, (0, 0, 0, rows - values.shape[-2]))


def _by_panels(weight: torch.Tensor) -> torch.Tensor:
    """(left and right, input) to (panel, input, left and right of it)."""
    return weight.unflatten(0, (2, -1, _PANEL)).permute(1, 3, 0, 2)
