"""Builds ``main`` of a decoder-only model: inputs, parameters on first use, and the ops layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tvm import ir, relax, tirx

from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.parameters import Table, Weight

ROPE_COS, ROPE_SIN = "rope.cos", "rope.sin"
EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"


class DecoderBuilder:
    """Emits ops into ``main``; every method takes and returns Relax values, tokens first.

    Args:
        config: the model's settings.
        specs: parameter name -> where it comes from; the parameters of ``main``, in this order.
        embedding_dtype: ``float16`` or ``float32``, of the embedding table.
    """

    def __init__(self, config: ModelConfig, specs: Mapping[str, Weight | Table], embedding_dtype: str):
        self.config = config
        self.block = relax.BlockBuilder()
        self.seq, self.past = tirx.Var("seq", "int64"), tirx.Var("past", "int64")
        self.input_ids = relax.Var("input_ids", relax.TensorType([self.seq], "int32"))
        self.positions = relax.Var("positions", relax.TensorType([self.seq], "int32"))
        self.caches = [self._cache(name) for name in cache_names(config.num_layers)]
        self.parameters = {
            name: relax.Var(
                name, relax.TensorType(spec.shape, embedding_dtype if name == EMBEDDING else "float32")
            )
            for name, spec in specs.items()
        }

    def build(self, forward: Callable[[DecoderBuilder], list[relax.Expr]]) -> ir.IRModule:
        """The module whose ``main`` returns what ``forward`` does: logits, then the caches."""
        inputs = [self.input_ids, self.positions, *self.caches]
        attrs = {"num_input": len(inputs)}
        with self.block.function("main", [*inputs, *self.parameters.values()], attrs):
            with self.block.dataflow():
                result = self.block.emit_output(relax.Tuple(forward(self)))
            self.block.emit_func_output(result)
        module = self.block.get()
        relax.analysis.well_formed(module)
        return module

    def _cache(self, name: str) -> relax.Var:
        shape = [self.past, self.config.num_kv_heads, self.config.head_dim]
        return relax.Var(name, relax.TensorType(shape, "float32"))

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.block.emit(expr)

    def embed(self) -> relax.Var:
        """[seq, hidden] float32 rows of the embedding table."""
        return self.emit(relax.op.astype(self._rows(EMBEDDING, self.input_ids), "float32"))

    def _rows(self, table: str, indices: relax.Expr) -> relax.Var:
        # The engine checks token ids and positions; "clip" keeps any other caller inside of the table.
        return self.emit(relax.op.take(self.parameters[table], indices, axis=0, mode="clip"))

    def linear(self, x: relax.Expr, name: str) -> relax.Var:
        """``x [seq, K] @ W [K, N]``, plus the bias when the layer ``name`` has one."""
        y = self.emit(relax.op.matmul(x, self.parameters[f"{name}.weight"]))
        bias = self.parameters.get(f"{name}.bias")
        return y if bias is None else self.emit(relax.op.add(y, bias))

    def rms_norm(self, x: relax.Expr, name: str) -> relax.Var:
        """RMS norm over the last axis."""
        weight = self.parameters[f"{name}.weight"]
        return self.emit(relax.op.nn.rms_norm(x, weight, axes=[-1], epsilon=self.config.rms_norm_eps))

    def head_norm(self, x: relax.Expr, name: str) -> relax.Expr:
        """RMS norm of each head of ``x [seq, heads, head_dim]``, when the layer ``name`` exists."""
        return self.rms_norm(x, name) if f"{name}.weight" in self.parameters else x

    def heads(self, x: relax.Expr, count: int) -> relax.Var:
        """[seq, count * head_dim] -> [seq, count, head_dim]."""
        return self.emit(relax.op.reshape(x, [self.seq, count, self.config.head_dim]))

    def rope_rows(self) -> tuple[relax.Var, relax.Var]:
        """Cosines and sines of the new tokens' positions, [seq, 1, head_dim]."""
        cos, sin = self._rows(ROPE_COS, self.positions), self._rows(ROPE_SIN, self.positions)
        return self.emit(relax.op.expand_dims(cos, [1])), self.emit(relax.op.expand_dims(sin, [1]))

    def rotate(self, x: relax.Expr, cos: relax.Expr, sin: relax.Expr) -> relax.Var:
        """Rotary embedding of ``x [seq, heads, head_dim]``: ``x * cos + rotate_half(x) * sin``."""
        dim = self.config.head_dim
        low = self.emit(relax.op.strided_slice(x, [2], [0], [dim // 2]))
        high = self.emit(relax.op.strided_slice(x, [2], [dim // 2], [dim]))
        half = self.emit(relax.op.concat([self.emit(relax.op.negative(high)), low], axis=2))
        straight = self.emit(relax.op.multiply(x, cos))
        return self.emit(relax.op.add(straight, self.emit(relax.op.multiply(half, sin))))

    def append(self, cache: relax.Expr, rows: relax.Expr) -> relax.Var:
        """The whole cache: earlier tokens' rows, then the new ones, [past + seq, kv_heads, head_dim]."""
        return self.emit(relax.op.concat([cache, rows], axis=0))

    def attention(self, q: relax.Expr, k: relax.Expr, v: relax.Expr) -> relax.Var:
        """Causal attention of the new tokens to all so far; returns [seq, heads * head_dim]."""
        q, k, v = (self.emit(relax.op.expand_dims(x, [0])) for x in (q, k, v))
        mixed = self.emit(relax.op.nn.attention(q, k, v, causal_mask="BottomRight"))
        return self.emit(relax.op.reshape(mixed, [self.seq, self.config.num_heads * self.config.head_dim]))


def cache_names(num_layers: int) -> list[str]:
    """The caches of a model, in argument order."""
    return [f"{kind}_cache_{layer}" for layer in range(num_layers) for kind in ("k", "v")]


def rope_tables(config: ModelConfig) -> dict[str, Table]:
    """Float32 tables [max_positions, head_dim], computed in float64."""
    shape = (config.max_positions, config.head_dim)
    return {
        ROPE_COS: Table(shape, lambda: np.cos(_rope_angles(config)).astype(np.float32)),
        ROPE_SIN: Table(shape, lambda: np.sin(_rope_angles(config)).astype(np.float32)),
    }


def _rope_angles(config: ModelConfig) -> np.ndarray:
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    angles = np.arange(config.max_positions, dtype=np.float64)[:, None] * config.rope_theta**-pairs
    return np.concatenate([angles, angles], axis=1)
