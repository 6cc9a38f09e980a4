"""What attention's result and parallel branches become: kinds, and which ops share a function."""

from __future__ import annotations

import tvm
from tvm import ir, relax, tirx

from relax_passes.graph import LINEAR_W8A8, bindings, kernel_call
from relax_passes.partition import Partition

SEQ = tirx.Var("seq", "int64")
WIDTH = 32


class Block:
    """Emits the ops of one block with inputs x [seq, 32], a cache, a step and a packed weight."""

    def __init__(self) -> None:
        past = tirx.Var("past", "int64")
        self.bb = relax.BlockBuilder()
        self.x = relax.Var("x", relax.TensorType([SEQ, WIDTH], "float32"))
        self.cache = relax.Var("cache", relax.TensorType([past, 4, 8], "float32"))
        self.step = relax.Var("step", relax.TensorType([], "float32"))
        self.weight = relax.Var("weight", relax.TensorType([1, 8, WIDTH, 4], "uint8"))
        self.dense = relax.Var("dense", relax.TensorType([WIDTH, WIDTH], "float32"))

    def partitioned(self) -> ir.IRModule:
        arguments = [self.x, self.cache, self.step, self.weight, self.dense]
        with self.bb.function("main", arguments, {"num_input": 2}):
            with self.bb.dataflow():
                result = self.bb.emit_output(relax.Tuple(list(self.body())))
            self.bb.emit_func_output(result)
        after = tvm.transform.Sequential([relax.transform.CanonicalizeBindings(), Partition()])(self.bb.get())
        relax.analysis.well_formed(after)
        return after

    def body(self) -> tuple[relax.Var, ...]:
        raise NotImplementedError

    def quantize(self, x: relax.Expr) -> relax.Var:
        return self.bb.emit(relax.op.astype(relax.op.divide(x, self.step), "int8"))

    def linear(self, x: relax.Var) -> relax.Var:
        return self.bb.emit(
            kernel_call(LINEAR_W8A8, [x, self.weight], relax.TensorType([SEQ, WIDTH], "int32"))
        )

    def dequantize(self, x: relax.Var) -> relax.Var:
        return self.bb.emit(relax.op.multiply(relax.op.astype(x, "float32"), self.step))

    def attend(self, x: relax.Var) -> tuple[relax.Var, relax.Var]:
        rows = self.bb.emit(relax.op.reshape(x, (SEQ, 4, 8)))
        cache = self.bb.emit(relax.op.concat([self.cache, rows], axis=0))
        keys = relax.op.expand_dims(cache, axis=[0])
        queries = relax.op.expand_dims(rows, axis=[0])
        out = relax.op.nn.attention(queries, keys, keys, causal_mask="BottomRight")
        return self.bb.emit(relax.op.reshape(out, (SEQ, WIDTH))), cache


def functions(mod: ir.IRModule) -> dict[str, list[str]]:
    """The functions ``main`` calls, in order, with the ops that each contains."""
    calls = [b.value for b in bindings(mod["main"]) if isinstance(b.value, relax.Call)]
    names = [call.op.name_hint for call in calls if isinstance(call.op, ir.GlobalVar)]
    return {name: _ops(mod[name]) for name in names}


def _ops(function: relax.Function) -> list[str]:
    calls = [b.value for b in bindings(function) if isinstance(b.value, relax.Call)]
    return [call.op.name.removeprefix("relax.") for call in calls]


def test_attention_quantizes_its_result() -> None:
    class Sequential(Block):
        def body(self) -> tuple[relax.Var, ...]:
            attended, cache = self.attend(self.dequantize(self.linear(self.quantize(self.x))))
            out = self.dequantize(self.linear(self.quantize(attended)))
            return self.bb.emit(relax.op.add(out, self.x)), cache

    found = functions(Sequential().partitioned())
    assert list(found) == ["float_0", "linear_32x32", "float_1", "attention", "float_2"]
    assert found["attention"][-3:] == ["reshape", "divide", "astype"]
    assert found["float_2"] == ["astype", "multiply", "add"]


def test_what_reads_more_than_attention_or_is_a_product_is_no_part_of_it() -> None:
    class Float(Block):
        def body(self) -> tuple[relax.Var, ...]:
            attended, cache = self.attend(self.x)
            product = self.bb.emit(relax.op.matmul(attended, self.dense))
            return self.bb.emit(relax.op.add(attended, self.x)), product, cache

    found = functions(Float().partitioned())
    assert found["attention"][-1] == "reshape"
    assert sorted(found["float_1"]) == ["add", "matmul"]


class Parallel(Block):
    """The feed-forward branch ends two levels before the attention branch."""

    def body(self) -> tuple[relax.Var, ...]:
        both = self.dequantize(self.linear(self.quantize(self.x)))
        attended, cache = self.attend(both)
        down = self.dequantize(self.linear(self.quantize(relax.op.nn.silu(both))))
        out = self.dequantize(self.linear(self.quantize(attended)))
        total = self.bb.emit(relax.op.add(relax.op.add(out, down), self.x))
        return self.returned(total, down, cache)

    def returned(self, total: relax.Var, down: relax.Var, cache: relax.Var) -> tuple[relax.Var, ...]:
        return total, cache


def test_a_float_function_that_one_other_reads_begins_it() -> None:
    found = functions(Parallel().partitioned())
    assert list(found) == ["float_0", "linear_32x32", "float_1", "attention", "float_2"]
    assert found["float_2"].count("multiply") == 2


def test_a_float_function_that_is_returned_stays() -> None:
    class Returned(Parallel):
        def returned(self, *values: relax.Var) -> tuple[relax.Var, ...]:
            return values

    found = functions(Returned().partitioned())
    assert found["float_2"] == ["astype", "multiply"]
    assert found["float_3"] == ["astype", "multiply", "add", "add"]


def test_a_float_function_that_an_integer_function_reads_stays() -> None:
    class ReadTwice(Parallel):
        def returned(self, total: relax.Var, down: relax.Var, cache: relax.Var) -> tuple[relax.Var, ...]:
            return total, self.linear(self.quantize(down)), cache

    found = functions(ReadTwice().partitioned())
    assert found["float_2"] == ["astype", "multiply", "divide", "astype"]
