"""The MLP kernel, bit for bit against NumPy, on this CPU and on the emulated Hexagon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from targets.errors import TargetError
from targets.glu import GluFormat, activation_table, glu_format, glu_reference
from targets.hexagon.codegen import build_object
from targets.hexagon.linear import linear_w8a8
from targets.hexagon.mlp import MlpShape, mlp_w8a8
from targets.hexagon.session import Counters, DeviceSession, open_session
from targets.hexagon.target import hexagon_target, host_target
from targets.hexagon.toolchain import ServerKind, link_server
from targets.outliers import LARGEST, split_bytes
from targets.packing import linear_w8a8_reference, pack_weight

from .kernels import needs_qemu

# A last group that overlaps the one before and padded columns; whole groups in four contexts.
SHAPES = {
    "overlap": (MlpShape(5, 64, 172, 64), 1),
    "groups": (MlpShape(16, 64, 256, 96), 4),
}
OUTLIER_SHARE = 0.01


class Case:
    """Random inputs of a shape, with sums that reach every part of the activation; ``step`` of the result."""

    def __init__(self, shape: MlpShape, step: float = 0.2) -> None:
        rng = np.random.default_rng(shape.m)
        m, k, channels, n = shape
        self.shape = shape
        outliers = rng.random((m, k)) < OUTLIER_SHARE
        self.x = np.where(outliers, rng.integers(-2000, 2000, (m, k)), rng.integers(-128, 128, (m, k)))
        weights = [rng.integers(-128, 128, (k, channels), dtype=np.int8) for _ in range(2)]
        self.gate_up = np.concatenate([pack_weight(weight) for weight in weights])
        self.down = pack_weight(rng.integers(-128, 128, (channels, n), dtype=np.int8))
        self.gate_scale, self.up_scale = rng.uniform(0.5, 1, (2, channels)) * 1e-4
        self.format: GluFormat = glu_format(k, self.gate_scale, self.up_scale, np.float64(step))
        self.table = activation_table("silu")

    def expected(self) -> np.ndarray:
        sums = _product(self.x, self.gate_up)
        h = glu_reference(sums, self.shape.k, self.format, self.table)
        self.outliers = float(np.mean(split_bytes(h)[1] != 0))
        return _product(h, self.down)

    def run(self, session: DeviceSession, kernel: str) -> tuple[np.ndarray, Counters]:
        (m, _, sums), (_, channels, n) = self.shape.linears
        fmt = self.format
        inputs = (*split_bytes(self.x), self.gate_up, fmt.multipliers, fmt.shifts, self.table, self.down)
        y = session.empty((m, n), "int32")
        halves = (session.empty((m, channels), "int8") for _ in range(2))
        scratch = (session.empty((m, sums), "int32"), *halves)
        counters = session.call(kernel, *(session.upload(array) for array in inputs), *scratch, y)
        return session.download(y, np.empty((m, n), np.int32)), counters


def _product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    low, high = split_bytes(x)
    return linear_w8a8_reference(low, packed) + 256 * linear_w8a8_reference(high, packed)


@pytest.fixture(scope="module", params=["host", pytest.param("qemu", marks=needs_qemu)])
def session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeviceSession]:
    folder, kind = tmp_path_factory.mktemp("mlp"), request.param
    with open_session(kind, _build(kind, folder)) as opened:
        yield opened


def _build(kind: ServerKind, folder: Path) -> Path:
    hvx = kind == "qemu"
    kernels = {
        name: mlp_w8a8(shape, hvx=hvx, name=name, contexts=contexts)
        for name, (shape, contexts) in SHAPES.items()
    }
    for i, linear in enumerate(SHAPES["groups"][0].linears):
        kernels[f"linear{i}"] = linear_w8a8(*linear, hvx=hvx, name=f"linear{i}", contexts=4)
    target = hexagon_target("qcom/hexagon-v68").llvm_target() if hvx else host_target()
    build_object(kernels, target, folder / "kernels.o")
    return link_server([folder / "kernels.o"], kind, folder / "server")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("step", "fewest", "most"), [(5.0, 0.0, 0.01), (0.2, 0.01, 0.3), (1e-3, 0.6, 1.0)])
def test_bit_exact(session: DeviceSession, name: str, step: float, fewest: float, most: float) -> None:
    case = Case(SHAPES[name][0], step)
    result, _ = case.run(session, name)
    assert np.array_equal(result, case.expected())
    assert fewest <= case.outliers <= most


def test_every_saturated_input_is_exact(session: DeviceSession) -> None:
    case = Case(SHAPES["groups"][0])
    for value in (-32768, -128, 0, 127, LARGEST):
        case.x[:] = value
        result, _ = case.run(session, "groups")
        assert np.array_equal(result, case.expected())


@pytest.mark.parametrize("name", SHAPES)
def test_shifts_beyond_one_instruction_are_exact(session: DeviceSession, name: str) -> None:
    case = Case(SHAPES[name][0])
    case.format = glu_format(case.shape.k, case.gate_scale / 100, case.up_scale, np.float64(2e-3))
    assert min(case.format.shifts[0], case.format.shifts[2]) > 15
    result, _ = case.run(session, name)
    assert np.array_equal(result, case.expected())
    assert 0.01 <= case.outliers <= 0.9


@pytest.mark.parametrize("session", [pytest.param("qemu", marks=needs_qemu)], indirect=True)
def test_activation_and_scans_for_outliers_cost_about_a_packet_an_element(session: DeviceSession) -> None:
    case = Case(SHAPES["groups"][0], step=1.0)
    case.x = np.clip(case.x, -128, 127)
    m, _, channels, _ = case.shape
    _, counters = case.run(session, "groups")
    linears = 0
    for i, (rows, k, n) in enumerate(case.shape.linears):
        arrays = (np.zeros((rows, k), np.int8), np.zeros((n // 32, k // 4, 32, 4), np.uint8))
        y = session.empty((rows, n), "int32")
        linears += session.call(f"linear{i}", *(session.upload(array) for array in arrays), y).total_packets
    assert 0 < counters.total_packets - linears < 1.25 * m * channels


@pytest.mark.parametrize(
    "shape",
    [MlpShape(0, 64, 256, 64), MlpShape(4, 64, 100, 64), MlpShape(4, 62, 256, 64), MlpShape(4, 64, 256, 40)],
)
def test_bad_shapes_are_refused(shape: MlpShape) -> None:
    with pytest.raises(TargetError, match="mlp_w8a8 cannot have the shape"):
        mlp_w8a8(shape, hvx=True, name="mlp")
