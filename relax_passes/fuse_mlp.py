"""A gated MLP with static scales to one call of the kernel ``mllm.mlp_w8a8``.

    rounded = round(x / s);  xq = int8(clip(rounded, -127, 127))
    g, u = float32(matmul(xq, Wg)) * output_scale_g + shadow_linear(...), the same with Wu
    hq = int8(clip(round(act(g) * u / t), -127, 127))
    y = float32(matmul(hq, Wd)) * output_scale_d + shadow_linear(...)

    ->  limited = clip(rounded, -32768, 32639);  high = int8(round((limited + 0.25) / 256))
        low = int8(limited - 256 * high)                                    (high is zero but for outliers)
        y = float32(mlp_w8a8(low, high, Wg + Wu, ..., Wd)) * output_scale_d

The kernel has 16 bits for the inputs of its linears and computes the activation in integers, so nothing in
between needs the CPU: shadow paths, where there are any, become parts of the kernel. A float value in between
that something else reads keeps the MLP apart.

Runs after ``quantize_w8a8`` and ``CanonicalizeBindings`` (no value has two names), before ``lower_linear``.
Added parameters: the packed weights, named as ``lower_linear`` names them; for weights G, U and D
``G+U+D.glu_multipliers`` [2, channels] int32 and ``G+U+D.glu_shifts`` [4] int32; and for each activation
``ACTIVATION.glu_table`` [2, 128] int16. A target says what is in them. Parameters that nothing reads any more
are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import tvm
from tvm import ir, relax

from .graph import (
    MLP_W8A8,
    SHADOW_LINEAR,
    bindings,
    kernel_call,
    op_name,
    operands,
    results,
    split_params,
    static_shape,
)
from .lower_linear import JOIN, K_LANES, columns, is_integer_matmul, packed_parameter
from .quantize_w8a8 import INPUT_SCALE, INT8, OUTPUT_SCALE

GLU_MULTIPLIERS = ".glu_multipliers"
GLU_SHIFTS = ".glu_shifts"
GLU_TABLE = ".glu_table"
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
_SHIFTS = 4
_SEGMENTS = 128
_FEWEST_CHANNELS = 128


@tvm.transform.module_pass(opt_level=0, name="FuseMlp")
class FuseMlp:
    """Replaces every gated MLP of ``main`` by a kernel call, if nothing else reads what is inside it."""

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        fused = mod.clone()
        fused["main"] = _Fuser(mod, mod["main"]).rewrite()
        return fused


class _Mlp(NamedTuple):
    """What a kernel call needs: the rounded input, the int8 weights and the activation's name."""

    rounded: relax.Var
    gate: relax.Var
    up: relax.Var
    down: relax.Var
    activation: str

    @property
    def channels(self) -> int:
        """Channels between the linears."""
        return static_shape(self.down)[0]

    def fits(self) -> bool:
        """Whether the kernel takes these extents."""
        k, channels = static_shape(self.gate)[0], self.channels
        return k % K_LANES == 0 and channels % K_LANES == 0 and channels >= _FEWEST_CHANNELS


class _Matcher:
    """Finds MLPs in a straight-line function."""

    def __init__(self, function: relax.Function):
        found = bindings(function)
        self.values = {binding.var: binding.value for binding in found}
        self.parameters = set(split_params(function)[1])
        self.readers = Counter(leaf for b in found for leaf in operands(b.value))
        self.readers.update(results(function))
        # Weight -> the result of its shadow path.
        shadows = [b for b in found if op_name(b.value) == SHADOW_LINEAR]
        self.shadows = {binding.value.args[1][1]: binding.var for binding in shadows}

    def mlp(self, call: relax.Expr) -> _Mlp | None:
        """The MLP whose down projection is ``call``."""
        if not self._is_linear(call):
            return None
        quantized, down = call.args
        product = self._rounded(quantized, down)
        factors = self._operands(product, "multiply")
        for gated, up in (factors, factors[::-1]) if factors else ():
            mlp = self._gated(gated, up, down)
            if mlp is not None and mlp.fits():
                return mlp
        return None

    def _rounded(self, quantized: relax.Expr, down: relax.Var) -> relax.Expr | None:
        """What was scaled and rounded to ``quantized``, if only ``down`` reads any of it."""
        reads = (3, 2, 2) if self._has_residual(quantized, down) else (1, 1, 1)
        value = self._through(quantized, "astype")
        for op, count in zip(("clip", "round"), reads, strict=False):
            found = self._operands(value, op, count)
            value = found[0] if found else None
        return self._scaled(value, "divide", INPUT_SCALE, reads[-1])

    def _has_residual(self, quantized: relax.Expr, down: relax.Var) -> bool:
        """Whether what ``quantized`` leaves out is the input of the shadow path of ``down`` alone."""
        if down not in self.shadows:
            return False
        residual = operands(self.values[self.shadows[down]])[0]
        inside, _, excess = self._operands(residual, "where") or (None, None, None)
        compared, left = self._operands(inside, "equal"), self._operands(excess, "subtract")
        clipped = self._through(quantized, "astype")
        if clipped is None or compared is None or left is None:
            return False
        return compared[1].same_as(clipped) and left[1].same_as(clipped)

    def _gated(self, gated: relax.Expr, up: relax.Expr, down: relax.Var) -> _Mlp | None:
        for activation in ACTIVATIONS:
            gates = self._linear(self._through(gated, f"nn.{activation}"))
            ups = self._linear(up)
            if gates and ups and gates[0].same_as(ups[0]):
                rounded = self._before_clipping(gates[0])
                return _Mlp(rounded, gates[1], ups[1], down, activation) if rounded is not None else None
        return None

    def _before_clipping(self, quantized: relax.Var) -> relax.Var | None:
        """The rounded value that was clipped to ``quantized``; others may read it and its clipped form."""
        value = quantized
        for op in ("astype", "clip"):
            call = self.values.get(value)
            if call is None or op_name(call) != f"relax.{op}":
                return None
            value = call.args[0]
        return value

    def _linear(self, value: relax.Expr | None) -> list[relax.Var] | None:
        """Input and weight of the linear that ``value`` is the float result of, with its shadow path."""
        total = self._operands(value, "add")
        value = total[0] if total and total[1] in self.shadows.values() else value
        sums = self._through(self._scaled(value, "multiply", OUTPUT_SCALE), "astype")
        call = self.values.get(sums) if self.readers[sums] == 1 else None
        if call is None or not self._is_linear(call):
            return None
        return list(call.args)

    def _scaled(self, value: relax.Expr | None, op: str, suffix: str, reads: int = 1) -> relax.Expr | None:
        """What was multiplied with, or divided by, a parameter whose name ends in ``suffix``."""
        found = self._operands(value, op, reads)
        is_scaled = found is not None and found[1] in self.parameters and found[1].name.endswith(suffix)
        return found[0] if found is not None and is_scaled else None

    def _is_linear(self, call: relax.Expr) -> bool:
        return is_integer_matmul(call) and call.args[1] in self.parameters

    def _through(self, value: relax.Expr | None, *ops: str) -> relax.Expr | None:
        """What ``value`` was made from by ``ops``, the last one first; None when it was not."""
        for op in ops:
            found = self._operands(value, op)
            value = found[0] if found else None
        return value

    def _operands(self, value: relax.Expr | None, op: str, reads: int = 1) -> list[relax.Expr] | None:
        """The tensors that ``value`` was computed from by ``op``, if ``value`` is read so many times."""
        call = self.values.get(value)
        if call is None or op_name(call) != f"relax.{op}" or self.readers[value] != reads:
            return None
        return operands(call)


@relax.expr_functor.mutator
class _Fuser(relax.PyExprMutator):
    def __init__(self, mod: ir.IRModule, function: relax.Function):
        super().__init__(mod)
        self.function = function
        self.matcher = _Matcher(function)
        self.added: dict[str, relax.Var] = {}
        mlps = [self.matcher.mlp(binding.value) for binding in bindings(function)]
        # The shadow paths that become parts of kernels.
        self.replaced = {self.matcher.shadows.get(mlp.down) for mlp in mlps if mlp is not None}

    def rewrite(self) -> relax.Function:
        inputs, parameters = split_params(self.function)
        body = self.visit_expr(self.function.body)
        arguments = [*inputs, *parameters, *self.added.values()]
        rewritten = relax.Function(arguments, body, self.function.ret_ty, True, self.function.attrs)
        rewritten = relax.analysis.remove_all_unused(rewritten)
        read = {leaf for binding in bindings(rewritten) for leaf in operands(binding.value)}
        before = {leaf for binding in bindings(self.function) for leaf in operands(binding.value)}
        kept = [p for p in arguments[len(inputs) :] if p in read or p not in before]
        return relax.Function([*inputs, *kept], rewritten.body, rewritten.ret_ty, True, rewritten.attrs)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if op_name(call) == "relax.add" and call.args[1] in self.replaced:  # the kernel computes the sum
            return self.visit_expr(call.args[0])
        mlp = self.matcher.mlp(call)
        if mlp is None:
            return super().visit_call_(call)
        n = static_shape(mlp.down)[1]
        return columns(self.builder_.emit(self._kernel(mlp)), 0, n)

    def _kernel(self, mlp: _Mlp) -> relax.Call:
        weights = [weight.name.removesuffix(INT8) for weight in (mlp.gate, mlp.up, mlp.down)]
        name = JOIN.join(weights)
        gate_up, down = packed_parameter([mlp.gate, mlp.up]), packed_parameter([mlp.down])
        self.added |= {gate_up.name: gate_up, down.name: down}
        arguments = [
            *self._bytes(self.visit_expr(mlp.rounded)),
            gate_up,
            self._parameter(name + GLU_MULTIPLIERS, (2, mlp.channels), "int32"),
            self._parameter(name + GLU_SHIFTS, (_SHIFTS,), "int32"),
            self._parameter(mlp.activation + GLU_TABLE, (2, _SEGMENTS), "int16"),
            down,
        ]
        blocks, _, lanes, _ = static_shape(down)
        out = relax.TensorType((mlp.rounded.ty.shape.values[0], blocks * lanes), "int32")
        return kernel_call(MLP_W8A8, arguments, out)

    def _bytes(self, rounded: relax.Expr) -> list[relax.Var]:
        """``rounded`` as ``low + 256 * high``, int8 both; adding 0.25 makes ``low`` -128 rather than 128."""
        emit, size = self.builder_.emit, relax.const(256.0, "float32")
        limited = emit(relax.op.clip(rounded, -32768.0, 32639.0))
        shifted = emit(relax.op.add(limited, relax.const(0.25, "float32")))
        high = emit(relax.op.round(emit(relax.op.divide(shifted, size))))
        low = emit(relax.op.subtract(limited, emit(relax.op.multiply(high, size))))
        return [emit(relax.op.astype(value, "int8")) for value in (low, high)]

    def _parameter(self, name: str, shape: Iterable[int], dtype: str) -> relax.Var:
        return self.added.setdefault(name, relax.Var(name, relax.TensorType(tuple(shape), dtype)))
