"""Binds the kernels that Relax functions call by name to the CPU's PrimFuncs.

Runs before LegalizeOps. A call of any other packed function is left alone: it is resolved at run time.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax, tirx

from targets.cpu.errors import LoweringError
from targets.cpu.glu import glu_w8a8, outliers_w8a8
from targets.cpu.linear import linear_w8a8
from targets.cpu.linear_f32 import linear_f32
from targets.cpu.rewrite import rewrite_functions
from targets.cpu.shadow import shadow_linear
from targets.cpu.target import has_vnni
from targets.packing import COLUMNS

LINEAR_F32 = "mllm.linear_f32"
LINEAR_W8A8 = "mllm.linear_w8a8"
SHADOW_LINEAR = "mllm.shadow_linear"
MLP_W8A8 = "mllm.mlp_w8a8"

_CALL_DPS_PACKED = tvm.ir.Op.get("relax.call_dps_packed")


@tvm.transform.module_pass(opt_level=0, name="BindNamedKernels")
class BindNamedKernels:
    """``call_dps_packed`` of a named kernel to ``call_tir`` of PrimFuncs for its static shapes."""

    def __init__(self, target: tvm.target.Target):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        binder = _Binder(mod, has_vnni(self.target))
        return rewrite_functions(mod, binder.builder_, binder.visit_expr)


@relax.expr_functor.mutator
class _Binder(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, vnni: bool):
        super().__init__(mod)
        self.vnni = vnni
        self.kernels: dict[str, Callable[[tvm.ir.Call], tirx.PrimFunc]] = {
            LINEAR_F32: _float_linear,
            LINEAR_W8A8: lambda call: _linear(call, vnni),
            SHADOW_LINEAR: _shadow,
        }

    def visit_call_(self, call: tvm.ir.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = str(call.args[0].global_symbol) if call.op == _CALL_DPS_PACKED else None
        if name == MLP_W8A8:
            return self._mlp(call)
        if name not in self.kernels:
            return call
        kernel = self.builder_.add_func(self.kernels[name](call), name.rpartition(".")[2])
        tensors = [argument for argument in call.args[1] if not isinstance(argument, relax.ShapeExpr)]
        return relax.call_tir(kernel, tensors, out_ty=call.ty_args[0])

    def _mlp(self, call: tvm.ir.Call) -> relax.Expr:
        """Five kernels for what the NPU does in one."""
        x_low, x_high, gate_up, *parameters, down = call.args[1]
        blocks, steps, lanes, bytes_ = _static_shape(MLP_W8A8, gate_up.ty)
        _, channels = _static_shape(MLP_W8A8, parameters[0].ty)
        rows = x_low.ty.shape[0]
        out = relax.TensorType((rows, blocks * lanes), "int32")
        sums = self.builder_.emit(self._with_outliers(x_low, x_high, gate_up, out))
        glu = self.builder_.add_func(glu_w8a8(steps * bytes_, channels), "glu_w8a8")
        hidden = relax.TensorType((rows, channels), "int8")
        h = self.builder_.emit(relax.call_tir(glu, [sums, *parameters], out_ty=[hidden, hidden]))
        low, high = (self.builder_.emit(relax.TupleGetItem(h, i)) for i in (0, 1))
        return self._with_outliers(low, high, down, call.ty_args[0])

    def _with_outliers(
        self, low: relax.Var, high: relax.Var, weight: relax.Var, out: relax.TensorType
    ) -> relax.Expr:
        """The linear of an activation of two bytes."""
        call = self.builder_.normalize(relax.call_dps_packed(LINEAR_W8A8, [low, weight], out_ty=out))
        sums = self.builder_.emit(self.visit_call_(call))
        outliers = self.builder_.add_func(outliers_w8a8(self.vnni), "outliers_w8a8")
        return relax.call_tir(outliers, [high, weight, sums], out_ty=out)


def _float_linear(call: tvm.ir.Call) -> tirx.PrimFunc:
    x, w = (argument.ty for argument in call.args[1])
    panels, k, columns = _static_shape(LINEAR_F32, w)
    if columns != COLUMNS or (str(x.dtype), str(w.dtype)) != ("float32", "float32"):
        raise LoweringError(f"{LINEAR_F32} of {x} and {w}: expected x [seq, K] and w [N/32, K, 32], float32")
    _check_depth(LINEAR_F32, x, k)
    return linear_f32(k, panels)


def _linear(call: tvm.ir.Call, vnni: bool) -> tirx.PrimFunc:
    x, w = (argument.ty for argument in call.args[1])
    _, steps, columns, bytes_ = _static_shape(LINEAR_W8A8, w)
    if (columns, bytes_) != (32, 4) or (str(x.dtype), str(w.dtype)) != ("int8", "uint8"):
        raise LoweringError(
            f"{LINEAR_W8A8} of {x} and {w}: expected x [seq, K] int8 and w [N/32, K/4, 32, 4] uint8"
        )
    _check_depth(LINEAR_W8A8, x, steps * bytes_)
    return linear_w8a8(vnni)


def _shadow(call: tvm.ir.Call) -> tirx.PrimFunc:
    """The kernel of arguments that end in the first block of the packed weight that is the linear's."""
    *arguments, first = call.args[1]
    residual, packed, _, step, slots, hot, _ = (argument.ty for argument in arguments)
    _static_shape(SHADOW_LINEAR, packed)
    _check_depth(SHADOW_LINEAR, residual, *_static_shape(SHADOW_LINEAR, slots))
    return shadow_linear(str(hot.dtype), step.ndim == 1, int(first.values[0]))


def _static_shape(name: str, ty: relax.TensorType) -> tuple[int, ...]:
    if not all(isinstance(extent, tirx.IntImm) for extent in ty.shape):
        raise LoweringError(f"{name} with weights {ty}: expected a static shape; bind its variables first")
    return tuple(int(extent) for extent in ty.shape)


def _check_depth(name: str, x: relax.TensorType, k: int) -> None:
    if x.ndim != 2 or not isinstance(x.shape[1], tirx.IntImm) or int(x.shape[1]) != k:
        raise LoweringError(f"{name} of {x}: expected [seq, {k}], as the weights have K={k}")
