"""The integer linear kernel, bit for bit against NumPy, on this CPU and on the emulated Hexagon."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm

from targets.errors import TargetError
from targets.hexagon.codegen import build_object
from targets.hexagon.intrin import GENERIC, VNNI, DotUnit
from targets.hexagon.linear import build_linear, linear_w8a8
from targets.hexagon.loops import ContextSplit, split_contexts
from targets.hexagon.session import Counters, DeviceSession, open_session
from targets.hexagon.target import hexagon_target, host_target, supports_vnni
from targets.hexagon.tiling import Tiling, choose_unroll, rule_tiling, split
from targets.hexagon.toolchain import link_server
from targets.packing import linear_w8a8_reference, pack_weight

Shape = tuple[int, int, int]
ROWS = (1, 3, 16, 64)
DEPTHS = (4, 172, 512)
WIDTHS = (32, 64, 96, 320, 1024)
# Each number of rows meets each depth; 5 and 6 rows leave a rest after the block of 4.
SHAPES: list[Shape] = [
    *((m, k, WIDTHS[(i + j) % len(WIDTHS)]) for i, m in enumerate(ROWS) for j, k in enumerate(DEPTHS)),
    (2, 192, 96),
    (1, 64, 64),
    (5, 172, 64),
    (6, 172, 96),
]
EXTREMES = [(x, w) for x in (-127, 0, 127) for w in (-127, 0, 127)]
EXTREME_SHAPE: Shape = (3, 512, 96)
MEASURED_SHAPE: Shape = (64, 512, 512)
# (shape, whole-call MAC per packet at least): a long K, few rows, one row.
RATES = [((64, 4096, 128), 240.0), ((16, 2048, 256), 235.0), ((1, 2048, 512), 120.0)]
# Panels with a rest, and contexts that share columns or rows, with and without a rest.
CUTS = [
    ((21, 172, 96), Tiling(4, 2, 8, panel=8), 1),
    ((9, 64, 288), Tiling(4, 2, 8), 4),
    ((8, 64, 256), Tiling(4, 2, 8), 4),
    ((21, 172, 160), Tiling(3, 2, 4, panel=6), 2),
    ((2, 64, 32), Tiling(2, 2, 4), 4),
    ((33, 64, 96), Tiling(4, 2, 8), 4),
    ((39, 172, 64), Tiling(4, 2, 8, panel=16), 3),
]
SPLITS = [
    ((256, 2048), ContextSplit("columns", 4)),
    ((256, 320), ContextSplit("rows", 4)),
    ((16, 128), ContextSplit("rows", 4)),
    ((1, 4096), ContextSplit("columns", 4)),
    ((2, 32), ContextSplit("columns", 1)),
]
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hexagon device server with a kernel for each shape."""
    if shutil.which("qemu-hexagon") is None:
        pytest.skip("qemu-hexagon is not installed (Debian: qemu-user)")
    folder = tmp_path_factory.mktemp("linear")
    shapes = [*SHAPES, EXTREME_SHAPE, MEASURED_SHAPE, *(shape for shape, _ in RATES)]
    kernels = {_name(s): linear_w8a8(*s, hvx=True, name=_name(s)) for s in shapes}
    for shape, tiling, contexts in CUTS:
        kernels[_name(shape)] = linear_w8a8(
            *shape, hvx=True, name=_name(shape), tiling=tiling, contexts=contexts
        )
    build_object(kernels, hexagon_target("qcom/hexagon-v68").llvm_target(), folder / "kernels.o")
    return link_server([folder / "kernels.o"], "qemu", folder / "server")


@pytest.fixture(scope="module")
def device(server: Path) -> Iterator[DeviceSession]:
    with open_session("qemu", server) as session:
        yield session


def _run_on_device(device: DeviceSession, x: np.ndarray, packed: np.ndarray) -> tuple[np.ndarray, Counters]:
    (m, k), n = x.shape, packed.shape[0] * 32
    y = device.upload(np.full((m, n), 0x55555555, np.int32))
    counters = device.call(_name((m, k, n)), device.upload(x), device.upload(packed), y)
    return device.download(y), counters


@pytest.mark.parametrize("shape", SHAPES, ids=_name)
def test_device_kernel_is_exact(device: DeviceSession, shape: Shape) -> None:
    x, packed = _random_case(shape)
    y, _ = _run_on_device(device, x, packed)
    np.testing.assert_array_equal(y, linear_w8a8_reference(x, packed))


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: _name(cut[0]))
def test_panels_and_contexts_are_exact(device: DeviceSession, cut: tuple[Shape, Tiling, int]) -> None:
    x, packed = _random_case(cut[0])
    y, _ = _run_on_device(device, x, packed)
    np.testing.assert_array_equal(y, linear_w8a8_reference(x, packed))


@pytest.mark.parametrize(("shape", "rate"), RATES, ids=str)
def test_device_kernel_is_near_the_limit(device: DeviceSession, shape: Shape, rate: float) -> None:
    x, packed = _random_case(shape)
    y, counters = _run_on_device(device, x, packed)
    np.testing.assert_array_equal(y, linear_w8a8_reference(x, packed))
    assert np.prod(shape) / counters.packets >= rate


@pytest.mark.parametrize(("x", "w"), EXTREMES)
def test_device_kernel_is_exact_at_the_extremes(device: DeviceSession, x: int, w: int) -> None:
    y, _ = _run_on_device(device, *_constant_case(EXTREME_SHAPE, x, w))
    np.testing.assert_array_equal(y, np.full((3, 96), x * w * 512))


def test_device_kernel_keeps_both_multipliers_busy(server: Path, device: DeviceSession) -> None:
    m, k, n = MEASURED_SHAPE
    x, packed = _random_case(MEASURED_SHAPE)
    y, counters = _run_on_device(device, x, packed)
    np.testing.assert_array_equal(y, linear_w8a8_reference(x, packed))
    assert m * k * n / counters.packets >= 240
    with open_session("qemu", server) as other:
        assert _run_on_device(other, x, packed)[1] == counters


def test_code_for_other_generations_runs_on_the_emulated_one(server: Path, tmp_path: Path) -> None:
    shape: Shape = (5, 172, 32)
    objects = {f"v{version}": tmp_path / f"v{version}.o" for version in (65, 66, 69, 73, 75, 79, 81)}
    for name, path in objects.items():
        kernel = linear_w8a8(*shape, hvx=True, name=name)
        build_object({name: kernel}, hexagon_target(f"qcom/hexagon-{name}").llvm_target(), path)
    x, packed = _random_case(shape)
    with open_session("qemu", link_server(list(objects.values()), "qemu", tmp_path / "server")) as device:
        for name in objects:
            y = device.upload(np.full((5, 32), 0x55555555, np.int32))
            device.call(name, device.upload(x), device.upload(packed), y)
            np.testing.assert_array_equal(device.download(y), linear_w8a8_reference(x, packed), name)


@pytest.mark.parametrize("shape", [MEASURED_SHAPE, (1, 512, 512), (5, 172, 96)], ids=_name)
def test_device_kernel_needs_neither_scratch_memory_nor_stack(shape: Shape) -> None:
    kernel = linear_w8a8(*shape, hvx=True, name="linear")
    module = tvm.tirx.build(
        tvm.IRModule({"linear": kernel}), hexagon_target("qcom/hexagon-v68").llvm_target()
    )
    assembly = module.inspect_source("asm")
    assert "vrmpy" in assembly
    assert "TVMBackendAllocWorkspace" not in assembly
    frames = [int(size) for size in re.findall(r"allocframe\((?:r29,)?#(\d+)\)", assembly)]
    assert frames
    assert max(frames) <= 256


@pytest.mark.parametrize("tiling", [Tiling(1, 1, 1), Tiling(3, 3, 5), Tiling(8, 1, 2)])
def test_any_tiling_gives_the_same_result(tiling: Tiling) -> None:
    shape: Shape = (7, 172, 160)
    kernel = build_linear(*shape, replace(UNITS[-1], tiling=tiling), "linear")
    x, packed = _random_case(shape)
    y = tvm.runtime.empty((7, 160), "int32")
    tvm.tirx.build(tvm.IRModule({"linear": kernel}), target=host_target())["linear"](
        tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y
    )
    np.testing.assert_array_equal(y.numpy(), linear_w8a8_reference(x, packed))


def test_a_tiling_without_rows_is_refused() -> None:
    with pytest.raises(TargetError, match=r"rows=0.*at least 1"):
        Tiling(rows=0, blocks=2, unroll=16)


@pytest.mark.parametrize(("size", "expected"), SPLITS, ids=str)
def test_contexts_share_what_can_be_shared_evenly(size: tuple[int, int], expected: ContextSplit) -> None:
    tiling = rule_tiling(size[0], 512, size[1])
    rows, columns = split(size[0], tiling.rows), split(size[1] // 32, tiling.blocks)
    assert split_contexts(rows, columns, 4) == expected
    assert split_contexts(rows, columns, 1).parts == 1


def test_a_kernel_without_contexts_is_refused() -> None:
    with pytest.raises(TargetError, match=r"0 contexts"):
        linear_w8a8(4, 64, 64, hvx=True, name="linear", contexts=0)


def test_a_kernel_beyond_32_bits_is_refused() -> None:
    with pytest.raises(TargetError, match=r"32-bit address space"):
        linear_w8a8(64, 1 << 16, 1 << 17, hvx=True, name="linear")


@pytest.mark.parametrize("total", range(1, 20))
@pytest.mark.parametrize("size", [1, 2, 4])
def test_split_covers_each_index_once_in_order(total: int, size: int) -> None:
    runs = split(total, size)
    covered = [i for run in runs for i in range(run.start, run.start + run.repeats * run.size)]
    assert covered == list(range(total))
    assert size == 1 or total == 1 or all(run.size > 1 for run in runs), "a lone row or column"


@pytest.mark.parametrize(("steps", "most", "unroll"), [(128, 16, 16), (43, 16, 14), (48, 16, 16), (7, 1, 1)])
def test_the_unrolling_leaves_the_shortest_rest(steps: int, most: int, unroll: int) -> None:
    assert choose_unroll(steps, most) == unroll


@pytest.mark.parametrize("shape", [(0, 64, 64), (1, 0, 64), (1, 6, 64), (1, 64, 0), (1, 64, 48), (-1, 4, 32)])
@pytest.mark.parametrize("hvx", [False, True])
def test_a_shape_the_kernel_cannot_run_is_refused(shape: Shape, hvx: bool) -> None:
    with pytest.raises(TargetError, match=r"K a positive multiple of 4 and N a positive multiple of 32"):
        linear_w8a8(*shape, hvx=hvx, name="linear")
