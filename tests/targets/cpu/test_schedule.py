"""Blocks of a scheduled function share one loop over the rows and threads where each row needs no other."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tvm import relax, te, tirx

from targets.cpu.build import lower
from targets.cpu.schedule import schedule_primfunc
from targets.cpu.target import cpu_target
from tests.targets.cpu.helpers import Function, Kernel, module, with_threads

X = (("rows", 64), "float32")


def row_loops(func: tirx.PrimFunc) -> int:
    return len(re.findall(r"(?:range|grid|parallel)\(rows\b", func.script()))


@pytest.mark.parametrize("norm", ["rms_norm", "layer_norm"])
def test_a_norm_goes_over_the_rows_once(norm: str) -> None:
    def body(_: object, x: relax.Expr, *vectors: relax.Expr) -> relax.Expr:
        return getattr(relax.op.nn, norm)(x, *vectors, axes=-1, epsilon=1e-5)

    vectors = (((64,), "float32"),) * (1 if norm == "rms_norm" else 2)
    lowered = lower(module({"f": Function((X, *vectors), body)}), cpu_target())
    (kernel,) = [func for _, func in lowered.functions_items() if isinstance(func, tirx.PrimFunc)]
    assert row_loops(kernel) == 1
    assert "T.parallel(rows)" in kernel.script()
    # Intermediates of one row, allocated in its turn of the loop.
    assert all("rows" not in shape for shape in re.findall(r"sblock_alloc_buffer\((.*)\)", kernel.script()))
    compiled = Kernel(kernel)
    x, *weights = np.random.default_rng(0).standard_normal((3, 37, 64), np.float32)
    arguments = [x, *(weight[0] for weight in weights[: len(vectors)])]
    first, second = (with_threads(n, lambda: compiled(*arguments, out=np.empty_like(x))) for n in (1, 2))
    np.testing.assert_array_equal(first, second)


def test_a_row_that_needs_another_waits_for_it() -> None:
    rows = te.var("rows", dtype="int64")
    x = te.placeholder((rows, 64), name="x")
    k = te.reduce_axis((0, 64), "k")
    total = te.compute((rows,), lambda i: te.sum(x[i, k], axis=k), name="total")
    y = te.compute((rows, 64), lambda i, j: x[i, j] * total[rows - 1 - i], name="y")
    func = schedule_primfunc(te.create_prim_func([x, y]), "reversed")
    values = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    expected = values * values.sum(axis=1)[::-1, None]
    np.testing.assert_allclose(Kernel(func)(values, out=np.empty_like(values)), expected, rtol=1e-5)
    assert row_loops(func) > 1
    assert "T.parallel" not in func.script()


def test_results_of_one_shape_share_a_loop_behind_what_they_need() -> None:
    rows = te.var("rows", dtype="int64")
    x = te.placeholder((rows, 64), name="x")
    k = te.reduce_axis((0, 64), "k")
    twice = te.compute((rows, 64), lambda i, j: x[i, j] * 2.0, name="twice")
    total = te.compute((rows,), lambda i: te.sum(x[i, k], axis=k), name="total")
    y = te.compute((rows, 64), lambda i, j: x[i, j] * total[i], name="y")
    func = schedule_primfunc(te.create_prim_func([x, twice, y]), "results")
    script = func.script()
    assert row_loops(func) == 1
    total_at, twice_at, y_at = (script.index(f'T.sblock("{name}') for name in ("total", "twice", "y"))
    assert total_at < twice_at < y_at
    assert not re.search(r"range|grid", script[twice_at:y_at])
    values = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    products = Kernel(func)(values, np.empty_like(values), out=np.empty_like(values))
    np.testing.assert_allclose(products, values * values.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_sum_over_the_rows_is_no_loop_for_threads() -> None:
    rows = te.var("rows", dtype="int64")
    x = te.placeholder((rows, 64), name="x")
    k = te.reduce_axis((0, rows), "k")
    y = te.compute((64,), lambda j: te.sum(x[k, j], axis=k), name="y")
    func = schedule_primfunc(te.create_prim_func([x, y]), "column_sums")
    assert "T.parallel" not in func.script()
    values = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    sums = Kernel(func)(values, out=np.empty(64, np.float32))
    np.testing.assert_allclose(sums, values.sum(axis=0), rtol=1e-5)
