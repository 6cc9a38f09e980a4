"""The integer linear kernel, bit for bit against NumPy, on this CPU and on the emulated Hexagon."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from targets.errors import TargetError
from targets.hexagon.intrin import GENERIC, VNNI, DotUnit
from targets.hexagon.linear import build_linear, linear_w8a8, split
from targets.hexagon.target import host_target, supports_vnni
from targets.packing import linear_w8a8_reference, pack_weight

Shape = tuple[int, int, int]
ROWS = (1, 3, 16, 64)
DEPTHS = (4, 64, 172, 192, 512)
WIDTHS = (32, 64, 96, 320, 1024)
# Each number of rows meets each depth and each width; 5 and 6 rows leave a rest after the block of 4.
SHAPES: list[Shape] = [
    *((m, k, WIDTHS[(i + j) % len(WIDTHS)]) for i, m in enumerate(ROWS) for j, k in enumerate(DEPTHS)),
    (2, 192, 96),
    (5, 172, 64),
    (6, 172, 96),
]
EXTREMES = [(x, w) for x in (-127, 0, 127) for w in (-127, 0, 127)]
EXTREME_SHAPE: Shape = (3, 512, 96)
UNITS = [GENERIC, VNNI] if supports_vnni(host_target()) else [GENERIC]


def _name(shape: Shape) -> str:
    return "linear_{1}x{2}_m{0}".format(*shape)


def _random_case(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """x and packed w over the whole range of int8, -128 included."""
    m, k, n = shape
    rng = np.random.default_rng(m * k * n)
    x = rng.integers(-128, 128, (m, k), dtype=np.int8)
    return x, pack_weight(rng.integers(-128, 128, (k, n), dtype=np.int8))


def _constant_case(shape: Shape, x: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    m, k, n = shape
    return np.full((m, k), x, np.int8), pack_weight(np.full((k, n), w, np.int8))


class HostKernels:
    """Kernels of one dot-product unit, compiled for this CPU."""

    def __init__(self, unit: DotUnit) -> None:
        kernels = {_name(s): build_linear(*s, unit, _name(s)) for s in [*SHAPES, EXTREME_SHAPE]}
        self._library = tvm.tirx.build(tvm.IRModule(kernels), target=host_target())

    def run(self, x: np.ndarray, packed: np.ndarray) -> np.ndarray:
        (m, k), n = x.shape, packed.shape[0] * 32
        y = tvm.runtime.tensor(np.full((m, n), 0x55555555, np.int32))
        self._library[_name((m, k, n))](tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y)
        return y.numpy()


@pytest.fixture(scope="module", params=UNITS, ids=lambda unit: unit.name)
def host_kernels(request: pytest.FixtureRequest) -> HostKernels:
    return HostKernels(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=_name)
def test_host_kernel_is_exact(host_kernels: HostKernels, shape: Shape) -> None:
    x, packed = _random_case(shape)
    np.testing.assert_array_equal(host_kernels.run(x, packed), linear_w8a8_reference(x, packed))


@pytest.mark.parametrize(("x", "w"), EXTREMES)
def test_host_kernel_is_exact_at_the_extremes(host_kernels: HostKernels, x: int, w: int) -> None:
    inputs = _constant_case(EXTREME_SHAPE, x, w)
    np.testing.assert_array_equal(host_kernels.run(*inputs), np.full((3, 96), x * w * 512))


@pytest.mark.parametrize("total", range(1, 20))
@pytest.mark.parametrize("size", [1, 2, 4])
def test_split_covers_each_index_once_in_order(total: int, size: int) -> None:
    runs = split(total, size)
    covered = [i for run in runs for i in range(run.start, run.start + run.count * run.size)]
    assert covered == list(range(total))
    assert size == 1 or total == 1 or all(run.size > 1 for run in runs), "a lone row or column"


@pytest.mark.parametrize("shape", [(0, 64, 64), (1, 0, 64), (1, 6, 64), (1, 64, 0), (1, 64, 48), (-1, 4, 32)])
@pytest.mark.parametrize("hvx", [False, True])
def test_a_shape_the_kernel_cannot_run_is_refused(shape: Shape, hvx: bool) -> None:
    with pytest.raises(TargetError, match=r"K a positive multiple of 4 and N a positive multiple of 32"):
        linear_w8a8(*shape, hvx=hvx, name="linear")
