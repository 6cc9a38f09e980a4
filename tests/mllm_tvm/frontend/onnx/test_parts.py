"""The parts of the importer on their own: extents, layouts, NumPy operators, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from mllm_tvm.frontend.onnx import attention, tensor
from mllm_tvm.frontend.onnx.dims import CACHED_PROBES, ONE, PAST, SEQ, TOTAL, Binding, Dim, fit, row_dims
from mllm_tvm.frontend.onnx.file import OnnxFile
from mllm_tvm.frontend.onnx.numpy_ops import NUMPY_OPS, attributes
from mllm_tvm.frontend.onnx.tensor import Tensor, UnsupportedError


def _n(*extents: int) -> tuple[Dim, ...]:
    return tuple(Dim(const=extent) for extent in extents)


def test_fit_finds_affine_extents_only() -> None:
    shapes = [[1, seq, past + seq, 4 * seq, 7] for seq, past in CACHED_PROBES]
    assert fit(CACHED_PROBES, shapes) == (ONE, SEQ, TOTAL, Dim(seq=4), Dim(const=7))
    assert fit(CACHED_PROBES, [[seq * past] for seq, past in CACHED_PROBES]) is None
    assert fit(CACHED_PROBES, [[1]] * 3 + [[1, 1]]) is None


def test_moving_tokens_and_ones_is_a_view() -> None:
    x = Tensor("linear", (), (ONE, SEQ, *_n(64)))
    heads = tensor.reshape(x, (ONE, SEQ, *_n(4, 16)))
    moved = tensor.transpose(heads, (0, 2, 1, 3))
    assert moved.dims == (ONE, *_n(4), SEQ, *_n(16))
    assert (moved.op, moved.inputs) == ("view", (heads,))
    assert row_dims(moved.dims) == row_dims(heads.dims) == (SEQ, *_n(4, 16))
    assert tensor.transpose(moved, (0, 2, 1, 3)) is heads
    assert tensor.transpose(moved, (0, 2, 3, 1)).op == "permute"


def test_reshape_keeps_memory_order() -> None:
    x = Tensor("linear", (), (ONE, SEQ, *_n(4, 16)))
    assert tensor.reshape(x, (SEQ, *_n(4), ONE, *_n(16))).op == "view"
    merged = tensor.reshape(x, (ONE, Dim(seq=4), *_n(16)))
    assert (merged.op, row_dims(merged.dims)) == ("view", (SEQ, *_n(4, 16)))
    with pytest.raises(UnsupportedError, match="expected to keep its tokens"):
        tensor.reshape(x, (ONE, *_n(4), SEQ, *_n(16)))  # the layout would fit, the elements would not


def test_concat_along_tokens_appends_to_a_cache_only() -> None:
    cache = Tensor("cache", (), (ONE, *_n(2), PAST, *_n(16)))
    rows = Tensor("linear", (), (ONE, *_n(2), SEQ, *_n(16)))
    assert tensor.concat([cache, rows], -2).op == "append"
    assert tensor.concat([cache, rows], -2).dims[2] == TOTAL
    for parts in ([rows, cache], [rows, rows]):
        with pytest.raises(UnsupportedError, match="joins tokens"):
            tensor.concat(parts, 2)


def _reference(node: onnx.NodeProto, arrays: list[np.ndarray]) -> list[Any]:
    names = list(node.input)
    return ReferenceEvaluator(node).run(None, dict(zip(names, arrays, strict=True)))


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7
I = np.array  # noqa: E741
CASES: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("Slice", [X, I([-1]), I([-10]), I([2]), I([-1])], {}),
    ("Slice", [X, I([1, 0]), I([2**62, 2]), I([2, 1])], {}),
    ("Reshape", [X, I([0, -1, 2])], {}),
    ("Unsqueeze", [X, I([0, -1])], {}),
    ("Squeeze", [X[:, :1], I([1])], {}),
    ("Gather", [X, I([[2, 0]])], {"axis": 1}),
    ("GatherND", [X, I([[0, 1], [1, 2]])], {}),
    ("GatherElements", [X, I([[[0, 1, 0, 2]], [[1, 1, 1, 1]]])], {"axis": 1}),
    ("ScatterND", [X, I([[0], [1]]), X[::-1].copy()], {}),
    ("Expand", [X[:, :1], I([2, 1, 3, 1])], {}),
    ("CumSum", [X, I(1)], {"exclusive": 1}),
    ("CumSum", [X, I(-1)], {"reverse": 1}),
    ("Trilu", [X, I(1)], {"upper": 0}),
    ("Div", [I([7, -7, 6]), I([2, 2, -4])], {}),
    ("Mod", [I([7, -7]), I([3, 3])], {}),
    ("Mod", [X, np.float32(3) + 0 * X], {"fmod": 1}),
    ("Range", [I(2), I(9), I(3)], {}),
    ("ConstantOfShape", [I([2, 3])], {"value": onnx.numpy_helper.from_array(np.array([5], np.int64))}),
    ("ReduceSum", [X, I([1])], {"keepdims": 0}),
    ("ReduceMax", [X, I([-1])], {}),
    ("Pow", [I([2, 3]), np.array([2.0, 3.0], np.float32)], {}),
    ("Clip", [X, np.float32(-2), np.float32(3)], {}),
    ("Tile", [X, I([1, 2, 1])], {}),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("Flatten", [X], {"axis": 2}),
    ("Cast", [X], {"to": onnx.TensorProto.BOOL}),
    ("Where", [X > 0, X, -X], {}),
    ("Split", [X, I([1, 3])], {"axis": 2}),
    ("Split", [X], {"axis": 1, "num_outputs": 2}),
]


@pytest.mark.parametrize(("op", "arrays", "attrs"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_numpy_operator_equals_the_onnx_reference(
    op: str, arrays: list[np.ndarray], attrs: dict[str, Any]
) -> None:
    outputs = ["y", "z"] if op == "Split" else ["y"]
    node = onnx.helper.make_node(op, [f"x{i}" for i in range(len(arrays))], outputs, **attrs)
    found = NUMPY_OPS[op](attributes(node), *arrays)
    found = found if isinstance(found, list) else [found]
    for array, expected in zip(found, _reference(node, arrays), strict=True):
        assert np.asarray(array).dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def _masks(function: Any) -> tuple[attention.Masks, Any]:
    mask = Tensor("mask", (), (ONE, ONE, SEQ, TOTAL), {"name": "mask"})

    def evaluate(_: Tensor, b: Binding) -> np.ndarray:
        return function(np.arange(b.past, b.past + b.seq)[:, None], np.arange(b.past + b.seq))[None, None]

    return attention.Masks(added=[mask]), evaluate


BINDINGS = [*CACHED_PROBES, Binding(2, 40)]


def test_masks_are_recognized_by_what_they_compute() -> None:
    masks, evaluate = _masks(lambda i, j: np.where(j <= i, 0.0, -np.inf))
    assert attention.check_causal(masks, evaluate, BINDINGS) is None
    masks, evaluate = _masks(lambda i, j: (j <= i) & (j > i - 20))
    assert attention.check_causal(masks, evaluate, BINDINGS) == 20
    masks, evaluate = _masks(lambda i, j: (j >= 0) & (i >= 0))
    assert attention.check_causal(masks, evaluate, BINDINGS, causal=True) is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i, j: (j >= 0) & (i >= 0), "later ones"),
        (lambda i, j: np.where(j <= i, (j - i) * 0.1, -np.inf), "adds a bias"),
        (lambda i, j: (j <= i) & ((j > i - 3) | (j == 0)), "sliding window"),
    ],
    ids=["bidirectional", "alibi", "sinks"],
)
def test_other_masks_are_refused(function: Any, message: str) -> None:
    masks, evaluate = _masks(function)
    with pytest.raises(UnsupportedError, match=message):
        attention.check_causal(masks, evaluate, BINDINGS)


def test_embedded_weights_stay_on_disk(tmp_path: Path) -> None:
    arrays = {f"w{i}": np.random.default_rng(i).normal(size=(i, 70)).astype(np.float32) for i in (1, 30, 500)}
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    node = onnx.helper.make_node("Identity", ["w30"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [30, 70])
    graph = onnx.helper.make_graph([node], "graph", [], [output], weights)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    file = OnnxFile(tmp_path / "model.onnx")
    assert [len(tensor.raw_data) for tensor in file.graph.initializer] == [280, 0, 0]
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.read(name), array)
    assert file.model.producer_name == onnx.load(tmp_path / "model.onnx").producer_name
