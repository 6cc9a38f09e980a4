"""Runs an imported model in float on the CPU: the reference that calibration and evaluation need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tvm
from tvm import ir, relax

from mllm_tvm.frontend.model import Model
from relax_passes.graph import split_params
from relax_passes.pack_float_linear import PANELS, PackFloatLinear
from targets.cpu.build import build
from targets.cpu.target import cpu_target
from targets.packing import pack_weight_f32


class FloatModel:
    """A compiled ``main`` with its parameters, for one thread; weights of float linears are packed.

    Args:
        model: the imported model.
        module: a module to run in place of ``model.module``; its ``main`` takes the same inputs.
        parameters: the parameters of that ``main``, in argument order; None for the model's own.
    """

    def __init__(
        self,
        model: Model,
        module: ir.IRModule | None = None,
        parameters: Mapping[str, np.ndarray] | None = None,
    ):
        self.model = model
        source = model.module if module is None else module
        module = tvm.transform.Sequential([PackFloatLinear()])(source)
        executable = build(module, cpu_target())
        # "naive" keeps no buffers: a pool would keep one of every length it has seen.
        self.vm = relax.VirtualMachine(executable, tvm.cpu(), memory_cfg="naive")
        if parameters is None:
            parameters = {name: model.parameters[name] for name in model.parameter_names()}
        _, arguments = split_params(module["main"])
        self._packed = {a.name.removesuffix(PANELS) for a in arguments if a.name.endswith(PANELS)}
        self.parameters: dict[str, tvm.runtime.Tensor] = {}
        for name, value in parameters.items():
            self.set_parameter(name, value)

    def set_parameter(self, name: str, value: np.ndarray) -> None:
        """Use ``value`` for the parameter ``name`` from now on."""
        self.parameters[name] = tvm.runtime.tensor(pack_weight_f32(value) if name in self._packed else value)

    def run(self, token_ids: Sequence[int], caches: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """All results of ``main``: logits [seq, vocab], then the appended caches, then what a pass added.

        Args:
            token_ids: the new tokens, at least one.
            caches: what an earlier run returned, [past, kv_heads, head_dim] each; None for no earlier tokens.
        """
        caches = self.model.empty_caches() if caches is None else caches
        past = caches[0].shape[0]
        positions = np.arange(past, past + len(token_ids), dtype=np.int32)
        inputs = [np.asarray(token_ids, np.int32), positions, *caches]
        outputs = self.vm["main"](*map(tvm.runtime.tensor, inputs), *self.parameters.values())
        return [output.numpy() for output in outputs]
