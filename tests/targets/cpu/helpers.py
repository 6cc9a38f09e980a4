"""Building small Relax modules, and running their functions on NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from unittest import mock

import numpy as np
import tvm
from tvm import relax, tirx

from targets.cpu.build import build, compile_options
from targets.cpu.target import cpu_target
from targets.cpu.threads import THREADS_VARIABLE, use_threads

Array = np.ndarray
# A dimension is an extent or the name of a symbolic one.
Shape = tuple[int | str, ...]
Body = Callable[..., relax.Expr | tuple[relax.Expr, ...]]


@dataclass(frozen=True)
class Function:
    """A Relax function: its arguments, as (shape, dtype), and ``body(dims, *arguments)``."""

    arguments: tuple[tuple[Shape, str], ...]
    body: Body


def module(functions: dict[str, Function]) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    for name, function in functions.items():
        _add(builder, name, function)
    # Bodies are expressions: what one uses twice is one value.
    return relax.transform.EliminateCommonSubexpr()(builder.finalize())


def _add(builder: relax.BlockBuilder, name: str, function: Function) -> None:
    dims = {d: tirx.Var(d, "int64") for shape, _ in function.arguments for d in shape if isinstance(d, str)}
    parameters = [
        relax.Var(f"a{i}", relax.TensorType([dims[d] if isinstance(d, str) else d for d in shape], dtype))
        for i, (shape, dtype) in enumerate(function.arguments)
    ]
    with builder.function(name, parameters):
        with builder.dataflow():
            result = function.body(dims, *parameters)
            if isinstance(result, tuple):
                result = relax.Tuple([builder.emit(item) for item in result])
            output = builder.emit_output(builder.normalize(result))
        builder.emit_func_output(output)


def virtual_machine(mod: tvm.IRModule) -> relax.VirtualMachine:
    return relax.VirtualMachine(build(mod, cpu_target()), tvm.cpu(), memory_cfg="naive")


def run(vm: relax.VirtualMachine, name: str, *arrays: Array) -> list[Array]:
    result = vm[name](*map(tvm.runtime.tensor, arrays))
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]


class Kernel:
    """A PrimFunc compiled alone; a call passes inputs (arrays are copied) and returns the output."""

    def __init__(self, func: tirx.PrimFunc, mcpu: str | None = None):
        mod = tvm.IRModule({"kernel": func.with_attr("global_symbol", "kernel")})
        with compile_options():
            self.library = tvm.compile(mod, target=cpu_target(mcpu))

    def __call__(self, *inputs: Array | tvm.runtime.Tensor, out: Array) -> Array:
        tensors = [
            array if isinstance(array, tvm.runtime.Tensor) else tvm.runtime.tensor(array)
            for array in (*inputs, out)
        ]
        self.library["kernel"](*tensors)
        return tensors[-1].numpy()


def snr_db(reference: Array, actual: Array) -> float:
    """Signal to noise in decibels; infinite when equal."""
    noise = np.square(reference.astype(np.float64) - actual.astype(np.float64)).sum()
    signal = np.square(reference.astype(np.float64)).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))


def vectorized_loops(func: tirx.PrimFunc) -> int:
    return func.script().count("T.vectorized(")


def assert_rows_are_independent(compute: Callable[[Array], Array], x: Array, sizes: Sequence[int]) -> None:
    """Rows computed in blocks of any size have the bits they have in one block."""
    whole = compute(x)
    for size in sizes:
        blocks = [compute(x[start : start + size]) for start in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole, err_msg=f"blocks of {size} rows")


def with_threads(count: int, call: Callable[[], Array]) -> Array:
    """The result of ``call`` on a new thread, whose kernels use ``count`` threads."""

    def configured() -> Array:
        with mock.patch.dict(os.environ, {THREADS_VARIABLE: str(count)}):
            use_threads(count)
        return call()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(configured).result()
