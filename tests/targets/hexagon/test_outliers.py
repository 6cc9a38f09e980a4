"""Upper bytes of activations on HVX: `targets.hexagon.outliers`, bit for bit against NumPy, and packets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from targets.hexagon.codegen import build_object
from targets.hexagon.glu import share_rows
from targets.hexagon.outliers import emit_sparse
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import hexagon_target
from targets.hexagon.toolchain import link_server
from targets.packing import linear_w8a8_reference, pack_weight

from .kernels import needs_qemu

pytestmark = needs_qemu

# (m, k, n) and contexts: rows shorter than a vector; a last vector that overlaps; 33 vectors and one that
# overlaps; every folding of the bits of vectors, some of them full; every remainder of blocks of outputs.
SHAPES = [
    ((3, 64, 160), 1),
    ((5, 172, 32), 1),
    ((2, 4300, 64), 1),
    ((4, 128, 96), 2),
    ((3, 256, 128), 1),
    ((3, 512, 192), 1),
    ((16, 1024, 256), 4),
    ((2, 2048, 224), 1),
    ((16, 2048, 2048), 1),
    ((256, 2944, 256), 4),
    ((1, 4096, 288), 4),
    ((64, 192, 544), 4),
]
SHARES = (0.0, 0.004, 0.05, 1.0)


def _kernel(shape: tuple[int, int, int], contexts: int, name: str) -> tirx.PrimFunc:
    m, k, n = shape
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True, "tirx.is_scheduled": True})
        high = T.arg("high", T.buffer((m, k), "int8", align=128))
        w = T.arg("w", T.buffer((n // 32, k // 4, 32, 4), "uint8", align=128))
        y = T.arg("y", T.buffer((m, n), "int32", align=128))
        with share_rows(m, contexts) as rows:
            emit_sparse(high, w, y, rows)
    return builder.get()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceSession]:
    folder = tmp_path_factory.mktemp("outliers")
    kernels = {f"k{i}": _kernel(*shape, f"k{i}") for i, shape in enumerate(SHAPES)}
    build_object(kernels, hexagon_target("qcom/hexagon-v68").llvm_target(), folder / "kernels.o")
    with open_session("qemu", link_server([folder / "kernels.o"], "qemu", folder / "server")) as opened:
        yield opened


class Case:
    """Random weights of a shape and sums that the products are added to."""

    def __init__(self, index: int) -> None:
        self.name, ((m, k, n), _) = f"k{index}", SHAPES[index]
        self.rng = np.random.default_rng(index)
        self.w = pack_weight(self.rng.integers(-128, 128, (k, n), dtype=np.int8))
        self.sums = self.rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32)
        self.extents = (m, k)

    def high(self, share: float) -> np.ndarray:
        """Upper bytes of which ``share`` may be other than zero."""
        values = self.rng.integers(-128, 128, self.extents)
        return np.where(self.rng.random(self.extents) < share, values, 0).astype(np.int8)

    def packets(self, session: DeviceSession, high: np.ndarray) -> int:
        """Packets of all contexts; the result is checked."""
        y = session.upload(self.sums)
        counters = session.call(self.name, session.upload(high), session.upload(self.w), y)
        expected = self.sums + 256 * linear_w8a8_reference(high, self.w).astype(np.int64)
        result = session.download(y, np.empty_like(self.sums))
        assert np.array_equal(result, expected.astype(np.int32))
        return counters.total_packets


@pytest.mark.parametrize("index", range(len(SHAPES)), ids=[str(shape) for shape, _ in SHAPES])
def test_sums_are_bit_exact_for_any_share_of_outliers(session: DeviceSession, index: int) -> None:
    case = Case(index)
    packets = [case.packets(session, case.high(share)) for share in SHARES]
    assert packets == sorted(packets)


@pytest.mark.parametrize("index", [1, 2, 3, 7])
def test_every_single_word_is_found_once(session: DeviceSession, index: int) -> None:
    """One byte of a row alone, in words at the ends of vectors and of rows."""
    case = Case(index)
    rows, words = np.arange(case.extents[0]), case.extents[1] // 4
    for word in {0, 1, 31, words // 2, words - 32, words - 31, words - 2, words - 1}:
        high = np.zeros(case.extents, np.int8)
        high[rows, 4 * word + rows % 4] = 1 - 2 * (rows % 2)
        case.packets(session, high)


def test_packets_of_bytes_and_of_words(session: DeviceSession) -> None:
    """docs/kernels.md has those of a whole MLP."""
    case = Case(next(i for i, (shape, _) in enumerate(SHAPES) if shape == (16, 2048, 2048)))
    (m, k), blocks, words = case.extents, case.sums.shape[1] // 32, 32
    high = np.zeros(case.extents, np.int8)
    none = case.packets(session, high)
    assert none < 0.035 * m * k
    high[:, :: k // words] = 1
    assert case.packets(session, high) - none < 1.4 * m * words * blocks
