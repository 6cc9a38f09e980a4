"""Token-axis analysis on hand-made graphs: every rule, and the refusals."""

import pytest
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relax_passes.analyze_token_axis import analyze_token_axis
from relax_passes.errors import PassError
from relax_passes.token_axis_rules import RULES


def _analyze(module):
    table = analyze_token_axis(module["main"])
    return {row.value: (row.axis.axis if row.axis else None, row.mixes) for row in table.rows}


def _one_op(make, shape=("seq", 4, 8)):
    """A function that applies one op to a value with tokens on the axis marked ``seq``."""
    seq = tirx.Var("seq", "int64")
    x = relax.Var("x", relax.TensorType([seq if e == "seq" else e for e in shape], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], {"num_input": 1}):
        with builder.dataflow():
            value = builder.emit(make(x, seq), "value")
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return builder.get()


def test_attention_block():
    @I.ir_module
    class Module:
        @R.function
        def main(
            x: R.Tensor(("seq", 8), "float32"),
            cache: R.Tensor(("past", 2, 4), "float32"),
            w: R.Tensor((8, 8), "float32"),
        ):
            R.func_attr({"num_input": 2})
            seq = T.int64()
            with R.dataflow():
                y = R.matmul(x, w)
                rows = R.reshape(y, R.shape([seq, 2, 4]))
                whole = R.concat((cache, rows), axis=0)
                k = R.expand_dims(whole, axis=[0])
                q = R.reshape(y, R.shape([1, seq, 2, 4]))
                a = R.nn.attention(q, k, k, causal_mask="BottomRight")
                o = R.reshape(a, R.shape([seq, 8]))
                R.output(o)
            return o

    found = _analyze(Module)
    assert found == {
        "y": (0, False),
        "rows": (0, False),
        "whole": (0, True),
        "k": (1, False),
        "q": (1, False),
        "a": (1, True),
        "o": (0, False),
    }
    table = analyze_token_axis(Module["main"])
    assert "past + seq" in str(table)
    assert str(table).count("token-mixing") == 2


@pytest.mark.parametrize(
    ("make", "axis", "mixes"),
    [
        (lambda x, s: relax.op.add(x, x), 0, False),
        (lambda x, s: relax.op.permute_dims(x, [1, 0, 2]), 1, False),
        (lambda x, s: relax.op.permute_dims(x), 2, False),
        (lambda x, s: relax.op.expand_dims(x, [0]), 1, False),
        (lambda x, s: relax.op.expand_dims(x, [-1]), 0, False),
        (lambda x, s: relax.op.reshape(x, (s, 32)), 0, False),
        (lambda x, s: relax.op.broadcast_to(x, (3, s, 4, 8)), 1, False),
        (lambda x, s: relax.op.split(x, 2, axis=2), 0, False),
        (lambda x, s: relax.op.concat([x, x], axis=-1), 0, False),
        (lambda x, s: relax.op.concat([x, x], axis=0), 0, True),
        (lambda x, s: relax.op.strided_slice(x, [1], [0], [2]), 0, False),
        (lambda x, s: relax.op.nn.pad(x, [0, 0, 0, 0, 0, 4]), 0, False),
        (lambda x, s: relax.op.nn.softmax(x, axis=-1), 0, False),
        (lambda x, s: relax.op.nn.softmax(x, axis=0), 0, True),
        (lambda x, s: relax.op.mean(x, axis=[2]), 0, False),
        (lambda x, s: relax.op.matmul(x, relax.op.permute_dims(x, [0, 2, 1])), 0, True),
        (lambda x, s: relax.op.astype(x, "float16"), 0, False),
    ],
)
def test_rule(make, axis, mixes):
    assert _analyze(_one_op(make))["value"] == (axis, mixes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, s: relax.op.split(x, [2], axis=0), "cuts the token axis"),
        (lambda x, s: relax.op.strided_slice(x, [0], [0], [2]), "slices the token axis"),
        (lambda x, s: relax.op.nn.pad(x, [1, 0, 0, 0, 0, 0]), "pads the token axis"),
        (lambda x, s: relax.op.reshape(x, (4, s, 8)), "is not an axis of"),
        (lambda x, s: relax.op.mean(x, axis=[0]), "reduces the token axis"),
        (lambda x, s: relax.op.add(x, relax.op.permute_dims(x, [1, 0, 2])), "different token axes"),
        (lambda x, s: relax.op.cumsum(x, axis=0), "op relax.cumsum .* has no token-axis rule"),
    ],
)
def test_refusal_names_the_op(make, message):
    with pytest.raises(PassError, match=message):
        analyze_token_axis(_one_op(make)["main"])


def test_two_symbolic_axes_are_refused():
    a, b = tirx.Var("a", "int64"), tirx.Var("b", "int64")
    x = relax.Var("x", relax.TensorType([a, b], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], {"num_input": 1}):
        builder.emit_func_output(builder.emit(relax.op.add(x, x)))
    with pytest.raises(PassError, match="input x: expected one symbolic axis"):
        analyze_token_axis(builder.get()["main"])


def test_every_rule_is_for_an_existing_op():
    from tvm import ir

    known = set(ir.Op.list_op_names())
    assert {name for name in RULES if not name.startswith("mllm.")} <= known
