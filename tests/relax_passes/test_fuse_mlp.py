"""Gated MLPs become one kernel call exactly where nothing inside them is read elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import relax

from relax_passes import pipeline
from relax_passes.fuse_mlp import FuseMlp
from relax_passes.graph import LINEAR_W8A8, MLP_W8A8, SHADOW_LINEAR, bindings, op_name, operands
from relax_passes.quantize_w8a8 import PER_TOKEN, STATIC, LinearScheme

HIDDEN, CHANNELS = 32, 160
WEIGHTS = {"gate": (HIDDEN, CHANNELS), "up": (HIDDEN, CHANNELS), "down": (CHANNELS, HIDDEN)}
PRUNED = {name: LinearScheme(shadow=False) for name in WEIGHTS}
Activation = Callable[[relax.Expr], relax.Expr]


def _model(
    activation: Activation = relax.op.nn.silu,
    up_first: bool = False,
    channels: int = CHANNELS,
    layers: int = 1,
    exposed: bool = False,
) -> tvm.IRModule:
    """``layers`` MLPs with a residual connection around each; ``exposed``: a product is a result, too."""
    builder = relax.BlockBuilder()
    seq = tvm.tirx.Var("seq", "int64")
    x = relax.Var("x", relax.TensorType((seq, HIDDEN), "float32"))
    shapes = {"gate": (HIDDEN, channels), "up": (HIDDEN, channels), "down": (channels, HIDDEN)}
    weights = [
        {
            n: relax.Var(n + "." * bool(i) + str(i or ""), relax.TensorType(s, "float32"))
            for n, s in shapes.items()
        }
        for i in range(layers)
    ]
    parameters = [weight for layer in weights for weight in layer.values()]
    with builder.function("main", [x, *parameters], {"num_input": 1}):
        with builder.dataflow():
            value = x
            for layer in weights:
                gate = activation(builder.emit(relax.op.matmul(value, layer["gate"])))
                up = builder.emit(relax.op.matmul(value, layer["up"]))
                factors = (up, gate) if up_first else (gate, up)
                product = builder.emit(relax.op.multiply(*factors))
                down = builder.emit(relax.op.matmul(product, layer["down"]))
                value = builder.emit(relax.op.add(value, down))
            result = builder.emit_output(relax.Tuple([value, product] if exposed else [value]))
        builder.emit_func_output(result)
    return builder.get()


def _lowered(mod: tvm.IRModule, linears: dict[str, LinearScheme]) -> relax.Function:
    return pipeline.run(mod, linears, last="lower", fuse_mlp=True)["main"]


def _kernels(function: relax.Function) -> list[str]:
    names = [op_name(binding.value) for binding in bindings(function)]
    return [name for name in names if name in (LINEAR_W8A8, MLP_W8A8)]


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("up_first", [False, True])
def test_an_mlp_is_one_call(activation: str, up_first: bool) -> None:
    main = _lowered(_model(getattr(relax.op.nn, activation), up_first), PRUNED)
    assert _kernels(main) == [MLP_W8A8]
    call = next(b.value for b in bindings(main) if op_name(b.value) == MLP_W8A8)
    low, high, *parameters = operands(call)
    assert {str(v.ty.dtype) for v in (low, high)} == {"int8"}
    shapes = {v.name: [int(e) for e in v.ty.shape.values] for v in parameters}
    assert shapes == {
        "gate.int8+up.int8.packed": [10, 8, 32, 4],
        "gate+up+down.glu_multipliers": [2, CHANNELS],
        "gate+up+down.glu_shifts": [4],
        f"{activation}.glu_table": [2, 128],
        "down.int8.packed": [1, 40, 32, 4],
    }
    # What only the replaced float functions read is gone; what the others read is not.
    scales = {p.name for p in main.params if "scale" in p.name}
    assert scales == {"gate.input_scale", "down.output_scale"}


@pytest.mark.parametrize("shadowed", [["down"], ["gate", "up"], sorted(WEIGHTS)], ids="+".join)
def test_shadow_paths_become_parts(shadowed: list[str]) -> None:
    linears = {**PRUNED, **dict.fromkeys(shadowed, LinearScheme(shadow=True, hot_rows=2))}
    main = _lowered(_model(), linears)
    names = [op_name(binding.value) for binding in bindings(main)]
    assert MLP_W8A8 in names
    assert not {LINEAR_W8A8, SHADOW_LINEAR, "relax.where"} & set(names)
    assert not [p.name for p in main.params if p.name.endswith((".hot", ".hot_slot", ".shadow_counts"))]


@pytest.mark.parametrize("shadow", [False, True])
def test_a_value_that_is_read_elsewhere_keeps_the_linears_apart(shadow: bool) -> None:
    linears = dict.fromkeys(WEIGHTS, LinearScheme(shadow=shadow, hot_rows=1))
    assert _kernels(_lowered(_model(exposed=True), linears)) == [LINEAR_W8A8] * 2


@pytest.mark.parametrize(
    "model",
    [_model(relax.op.nn.relu), _model(relax.op.sigmoid), _model(channels=96), _model(channels=130)],
    ids=["relu", "sigmoid", "few channels", "no multiple of four"],
)
def test_what_the_kernel_cannot_compute_stays(model: tvm.IRModule) -> None:
    assert _kernels(_lowered(model, PRUNED)) == [LINEAR_W8A8] * 2


def test_scales_of_rows_keep_the_linears_apart() -> None:
    linears = {name: LinearScheme(PER_TOKEN, shadow=False) for name in WEIGHTS}
    assert _kernels(_lowered(_model(), linears)) == [LINEAR_W8A8] * 2


def test_layers_are_decided_one_by_one_and_share_the_function() -> None:
    names = [f"{n}{'.' + str(i) if i else ''}" for i in range(3) for n in WEIGHTS]
    linears = {n: LinearScheme(PER_TOKEN if n.endswith(".1") else STATIC, shadow=False) for n in names}
    mod = pipeline.run(_model(layers=3), linears, fuse_mlp=True)
    functions = {g.name_hint: f for g, f in mod.functions.items() if g.name_hint != "main"}
    fused = functions[f"mlp_{HIDDEN}x{CHANNELS}x{HIDDEN}"]
    assert (str(fused.attrs["kind"]), str(fused.attrs["processor"])) == ("mlp", "npu")
    called = [b.value.op.name_hint for b in bindings(mod["main"]) if isinstance(b.value, relax.Call)]
    assert called.count(f"mlp_{HIDDEN}x{CHANNELS}x{HIDDEN}") == 2
    assert called.count(f"linear_{HIDDEN}x{2 * CHANNELS}") == 1


def test_the_pass_leaves_its_input_alone() -> None:
    mod = pipeline.run(_model(), PRUNED, last="quantize")
    before = mod.script()
    FuseMlp()(mod)
    assert mod.script() == before
