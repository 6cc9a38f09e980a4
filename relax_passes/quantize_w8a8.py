"""Linear layers to W8A8 integer linears with a shadow path for activation outliers.

    rounded = round(x / s);  clipped = clip(rounded, -127, 127);  xq = int8(clipped)
    residual = where(rounded == clipped, 0, x - clipped * s)
    y = float32(matmul(xq, Wq)) * output_scale + shadow_linear(residual, W)

``s`` is the static per-tensor input scale, ``output_scale[n] = s * t[n]`` with the weight's per-channel
scale ``t``. The residual is non-zero only where ``x`` exceeds the int8 range, so ``y`` is the float result
minus rounding. (The paper's equation 1 is not an identity: it computes 256 from 200.)

Before: linears are ``matmul(x, W)`` with a parameter ``W`` of shape [K, N]. After: ``W`` is replaced by the
parameters ``W.int8`` [K, N] int8, ``W.output_scale`` [N] float32, ``W.input_scale`` [] float32 (one for all
linears that read the same value, named after the first), and with a shadow path ``W.shadow`` [K, N].
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import ir, relax

from .errors import PassError
from .graph import SHADOW_LINEAR, kernel_call, split_params, static_shape

INT8 = ".int8"
INPUT_SCALE = ".input_scale"
OUTPUT_SCALE = ".output_scale"
SHADOW = ".shadow"

LIMIT = 127.0


@tvm.transform.module_pass(opt_level=0, name="QuantizeW8A8")
class QuantizeW8A8:
    """Quantizes the linears named by ``shadow``: weight name -> whether it has a shadow path.

    Raises:
        PassError: a name is not the weight of a linear of ``main``.
    """

    def __init__(self, shadow: Mapping[str, bool], shadow_dtype: str = "float16"):
        self.shadow = dict(shadow)
        self.shadow_dtype = shadow_dtype

    def transform_module(self, mod: ir.IRModule, _context: tvm.transform.PassContext) -> ir.IRModule:
        quantizer = _Quantizer(mod, mod["main"], self.shadow, self.shadow_dtype)
        mod = mod.clone()
        mod["main"] = quantizer.rewrite()
        missing = self.shadow.keys() - quantizer.quantized
        if missing:
            raise PassError(f"not the weight of a linear of main: {', '.join(sorted(missing))}")
        return mod


@relax.expr_functor.mutator
class _Quantizer(relax.PyExprMutator):
    def __init__(self, mod: ir.IRModule, function: relax.Function, shadow: Mapping[str, bool], dtype: str):
        super().__init__(mod)
        self.function = function
        self.inputs, self.parameters = split_params(function)
        self.weights = {p: p.name for p in self.parameters if p.name in shadow}
        self.shadow = shadow
        self.shadow_dtype = dtype
        self.quantized: set[str] = set()
        self.added: list[relax.Var] = []
        # Linears that read one value share its scale and its quantized form.
        self.activations: dict[relax.Var, tuple[relax.Var, relax.Var]] = {}

    def rewrite(self) -> relax.Function:
        body = self.visit_expr(self.function.body)
        kept = [p for p in self.parameters if p not in self.weights]
        attrs = self.function.attrs
        return relax.Function([*self.inputs, *kept, *self.added], body, self.function.ret_ty, True, attrs)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != ir.Op.get("relax.matmul") or call.args[1] not in self.weights:
            return call
        return self._linear(call.args[0], call.args[1])

    def _linear(self, x: relax.Var, weight: relax.Var) -> relax.Expr:
        name = self.weights[weight]
        k, n = static_shape(weight)
        quantized, residual = self._quantize(x, name)
        int8 = self._parameter(name + INT8, (k, n), "int8")
        output_scale = self._parameter(name + OUTPUT_SCALE, (n,), "float32")
        accumulated = self._emit(relax.op.matmul(quantized, int8, out_dtype="int32"))
        y = self._emit(relax.op.multiply(relax.op.astype(accumulated, "float32"), output_scale))
        self.quantized.add(name)
        if not self.shadow[name]:
            return y
        shadow_weight = self._parameter(name + SHADOW, (k, n), self.shadow_dtype)
        shadow = self._emit(kernel_call(SHADOW_LINEAR, [residual, shadow_weight], y.ty))
        return relax.op.add(y, shadow)

    def _quantize(self, x: relax.Var, name: str) -> tuple[relax.Var, relax.Var]:
        """The int8 form of ``x`` and its residual. The residual of linears without a shadow path is dead
        code.
        """
        if x not in self.activations:
            scale = self._parameter(name + INPUT_SCALE, (), "float32")
            rounded = self._emit(relax.op.round(relax.op.divide(x, scale)))
            clipped = self._emit(relax.op.clip(rounded, -LIMIT, LIMIT))
            quantized = self._emit(relax.op.astype(clipped, "int8"))
            excess = self._emit(relax.op.subtract(x, relax.op.multiply(clipped, scale)))
            inside = self._emit(relax.op.equal(rounded, clipped))
            residual = self._emit(relax.op.where(inside, relax.const(0.0, "float32"), excess))
            self.activations[x] = (quantized, residual)
        return self.activations[x]

    def _emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder_.emit(expr)

    def _parameter(self, name: str, shape: tuple[int, ...], dtype: str) -> relax.Var:
        parameter = relax.Var(name, relax.TensorType(shape, dtype))
        self.added.append(parameter)
        return parameter
