"""Linear layers to W8A8 integer linears, with a shadow path for activation outliers.

    rounded = round(x / s);  clipped = clip(rounded, -127, 127);  xq = int8(clipped)
    residual = where(rounded == clipped, 0, x / s - clipped)
    y = float32(matmul(xq, Wq)) * output_scale + shadow_linear(residual, ...)

``s`` is the static input scale: per tensor [], or per channel [K] when the channels' ratios are folded into
the rows of the weight before it is quantized. ``output_scale`` [N] holds the weight's scale times the
tensor's step. The residual is non-zero only where ``x`` exceeds the int8 range, so ``y`` is the float result
minus rounding. (The paper's equation 1 is not an identity: it computes 256 from 200.) The shadow linear is
``residual * s @ W`` with the float rows of ``W`` for *hot* channels, which are kept, and
``output_scale * (residual @ Wq)`` for all others: rows of the integer weight that is there anyway.

Two other ways to find the scale serve as baselines: ``per-token`` (each row's own abs max / 127, nothing is
clipped) and ``llm-int8`` (the same, after values at or above a channel's threshold went to the shadow path
whole).

Before: linears are ``matmul(x, W)`` with a parameter ``W`` of shape [K, N]. After: ``W`` is replaced by the
parameters ``W.int8`` [K, N] int8; ``W.output_scale`` [N] float32 and ``W.input_scale`` (static), or
``W.weight_scale`` [N] float32 and ``W.threshold`` [K] float32 (``llm-int8``); with a shadow path ``W.hot``
[hot_rows, N], ``W.hot_slot`` [K] int32 (the row of a channel in ``W.hot``, ``COLD`` for none) and
``W.shadow_counts`` [4] int64 (hot rows read, cold rows read, values looked at and tokens so far). Input
scales, thresholds and hot slots exist once for all linears that read the same value, named after the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import ir, relax

from .errors import PassError
from .graph import SHADOW_LINEAR, kernel_call, split_params, static_shape

INT8 = ".int8"
INPUT_SCALE = ".input_scale"
OUTPUT_SCALE = ".output_scale"
WEIGHT_SCALE = ".weight_scale"
THRESHOLD = ".threshold"
HOT = ".hot"
HOT_SLOT = ".hot_slot"
SHADOW_COUNTS = ".shadow_counts"

# Slots of channels that have no row of their own: their int8 rows are used, or their outliers are lost.
COLD, LEFT_OUT = -1, -2

STATIC, PER_TOKEN, LLM_INT8 = "static", "per-token", "llm-int8"
ACTIVATIONS = (STATIC, PER_TOKEN, LLM_INT8)
LIMIT = 127.0
# The scale of a row of zeros: any number above 0.
_SMALLEST_PEAK = 1e-20


@dataclass(frozen=True)
class LinearScheme:
    """How one linear is quantized.

    ``activation`` is one of ``ACTIVATIONS``. ``shadow``: what int8 cannot hold is carried in float (without,
    it is clipped). ``per_channel``: the static input scale is a vector [K]. ``hot_rows``: how many rows the
    tensor of float rows has, at least 1.
    """

    activation: str = STATIC
    shadow: bool = True
    per_channel: bool = False
    hot_rows: int = 1


@dataclass(frozen=True)
class _Activation:
    """A quantized linear input: int8 values and what they leave out, in units of ``step``.

    ``row_scale`` is the scale of each row if dynamic. Without a residual there is no shadow path.
    """

    quantized: relax.Var
    residual: relax.Var | None = None
    step: relax.Expr | None = None
    row_scale: relax.Var | None = None


@tvm.transform.module_pass(opt_level=0, name="QuantizeW8A8")
class QuantizeW8A8:
    """Quantizes the linears named by ``linears``: weight name -> its scheme.

    Linears that read one value have to agree in all but ``shadow``.

    Raises:
        PassError: a name is not the weight of a linear of ``main``, or an unknown ``activation``.
    """

    def __init__(self, linears: Mapping[str, LinearScheme], shadow_dtype: str = "float16"):
        for name, scheme in linears.items():
            if scheme.activation not in ACTIVATIONS:
                raise PassError(f"{name}: activation {scheme.activation!r}: expected one of {ACTIVATIONS}")
        self.linears = dict(linears)
        self.shadow_dtype = shadow_dtype

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        quantizer = _Quantizer(mod, mod["main"], self.linears, self.shadow_dtype)
        mod = mod.clone()
        mod["main"] = quantizer.rewrite()
        missing = self.linears.keys() - quantizer.quantized
        if missing:
            raise PassError(f"not the weight of a linear of main: {', '.join(sorted(missing))}")
        return mod


@relax.expr_functor.mutator
class _Quantizer(relax.PyExprMutator):
    def __init__(
        self, mod: ir.IRModule, function: relax.Function, linears: Mapping[str, LinearScheme], dtype: str
    ):
        super().__init__(mod)
        self.function = function
        self.inputs, self.parameters = split_params(function)
        self.weights = {p: p.name for p in self.parameters if p.name in linears}
        self.linears = linears
        self.shadow_dtype = dtype
        self.quantized: set[str] = set()
        self.added: dict[str, relax.Var] = {}
        # Linears that read one value share its quantized form; the first gives its parameters their names.
        self.activations: dict[relax.Var, tuple[str, _Activation]] = {}

    def rewrite(self) -> relax.Function:
        body = self.visit_expr(self.function.body)
        kept = [p for p in self.parameters if p not in self.weights]
        parameters = [*self.inputs, *kept, *self.added.values()]
        return relax.Function(parameters, body, self.function.ret_ty, True, self.function.attrs)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != ir.Op.get("relax.matmul") or call.args[1] not in self.weights:
            return call
        return self._linear(call.args[0], call.args[1])

    def _linear(self, x: relax.Var, weight: relax.Var) -> relax.Expr:
        name = self.weights[weight]
        scheme = self.linears[name]
        k, n = static_shape(weight)
        if x not in self.activations:
            self.activations[x] = name, self._quantize(x, name, scheme)
        first, activation = self.activations[x]
        int8 = self._parameter(name + INT8, (k, n), "int8")
        accumulated = self._emit(relax.op.matmul(activation.quantized, int8, out_dtype="int32"))
        scale = self._parameter(
            name + (OUTPUT_SCALE if activation.row_scale is None else WEIGHT_SCALE), (n,), "float32"
        )
        y = relax.op.multiply(relax.op.astype(accumulated, "float32"), scale)
        if activation.row_scale is not None:
            y = relax.op.multiply(y, activation.row_scale)
        y = self._emit(y)
        self.quantized.add(name)
        if not scheme.shadow or activation.residual is None:
            return y
        arguments = [
            activation.residual,
            int8,
            scale,
            activation.step,
            self._parameter(first + HOT_SLOT, (k,), "int32"),
            self._parameter(name + HOT, (scheme.hot_rows, n), self.shadow_dtype),
            self._parameter(name + SHADOW_COUNTS, (4,), "int64"),
        ]
        return relax.op.add(y, self._emit(kernel_call(SHADOW_LINEAR, arguments, y.ty)))

    def _quantize(self, x: relax.Var, name: str, scheme: LinearScheme) -> _Activation:
        """The int8 form of ``x``. The residual of linears without a shadow path is dead code."""
        if scheme.activation == STATIC:
            return self._quantize_static(x, name, scheme)
        if scheme.activation == PER_TOKEN:
            return self._quantize_rows(x)
        k = int(x.ty.shape.values[1])
        threshold = self._parameter(name + THRESHOLD, (k,), "float32")
        inside = self._emit(relax.op.less(relax.op.abs(x), threshold))
        zero = relax.const(0.0, "float32")
        body = self._emit(relax.op.where(inside, x, zero))
        return self._quantize_rows(body, self._emit(relax.op.where(inside, zero, x)))

    def _quantize_static(self, x: relax.Var, name: str, scheme: LinearScheme) -> _Activation:
        shape = (int(x.ty.shape.values[1]),) if scheme.per_channel else ()
        scale = self._parameter(name + INPUT_SCALE, shape, "float32")
        scaled = self._emit(relax.op.divide(x, scale))
        rounded = self._emit(relax.op.round(scaled))
        clipped = self._emit(relax.op.clip(rounded, -LIMIT, LIMIT))
        quantized = self._emit(relax.op.astype(clipped, "int8"))
        excess = self._emit(relax.op.subtract(scaled, clipped))
        inside = self._emit(relax.op.equal(rounded, clipped))
        residual = self._emit(relax.op.where(inside, relax.const(0.0, "float32"), excess))
        return _Activation(quantized, residual, scale)

    def _quantize_rows(self, x: relax.Var, residual: relax.Var | None = None) -> _Activation:
        """Each row by its own abs max."""
        peak = self._emit(relax.op.max(relax.op.abs(x), axis=[-1], keepdims=True))
        peak = self._emit(relax.op.maximum(peak, relax.const(_SMALLEST_PEAK, "float32")))
        scale = self._emit(relax.op.divide(peak, relax.const(LIMIT, "float32")))
        rounded = self._emit(relax.op.round(relax.op.divide(x, scale)))
        quantized = self._emit(relax.op.astype(rounded, "int8"))
        return _Activation(quantized, residual, relax.const(1.0, "float32"), scale)

    def _emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder_.emit(expr)

    def _parameter(self, name: str, shape: tuple[int, ...], dtype: str) -> relax.Var:
        if name not in self.added:
            self.added[name] = relax.Var(name, relax.TensorType(shape, dtype))
        return self.added[name]
