"""Builds ``main`` of a decoder-only model: inputs, parameters on first use, and the ops layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import ir, relax, tirx

from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.parameters import Spec, Table

ROPE_COS, ROPE_SIN = "rope.cos", "rope.sin"
EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"


class DecoderBuilder:
    """Emits ops into ``main``; every method takes and returns Relax values, tokens first.

    Args:
        config: the model's settings.
        specs: parameter name -> where it comes from; the parameters of ``main``, in this order.
        dtype: parameter name -> its dtype.
    """

    def __init__(self, config: ModelConfig, specs: Mapping[str, Spec], dtype: Callable[[str], str]):
        self.config = config
        self.block = relax.BlockBuilder()
        self.seq, self.past = tirx.Var("seq", "int64"), tirx.Var("past", "int64")
        self.input_ids = relax.Var("input_ids", relax.TensorType([self.seq], "int32"))
        self.positions = relax.Var("positions", relax.TensorType([self.seq], "int32"))
        self.caches = [self._cache(name) for name in cache_names(config.num_layers)]
        self.appended: list[relax.Var] = []
        self.parameters = {
            name: relax.Var(name, relax.TensorType(spec.shape, dtype(name))) for name, spec in specs.items()
        }

    def build(self, forward: Callable[[DecoderBuilder], relax.Expr]) -> ir.IRModule:
        """The module whose ``main`` returns the logits that ``forward`` does, then the caches."""
        inputs = [self.input_ids, self.positions, *self.caches]
        attrs = {"num_input": len(inputs)}
        with self.block.function("main", [*inputs, *self.parameters.values()], attrs):
            with self.block.dataflow():
                logits = forward(self)
                result = self.block.emit_output(relax.Tuple([logits, *self.appended]))
            self.block.emit_func_output(result)
        module = self.block.get()
        relax.analysis.well_formed(module)
        return module

    def _cache(self, name: str) -> relax.Var:
        shape = [self.past, self.config.num_kv_heads, self.config.head_dim]
        return relax.Var(name, relax.TensorType(shape, "float32"))

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.block.emit(expr)

    def embed(self, table: str = EMBEDDING, indices: relax.Expr | None = None) -> relax.Var:
        """[seq, hidden] float32 rows of an embedding table, by default those of the token ids."""
        rows = self._rows(table, self.input_ids if indices is None else indices)
        return self.emit(relax.op.astype(rows, "float32"))

    def _rows(self, table: str, indices: relax.Expr) -> relax.Var:
        # The engine checks token ids and positions; "clip" keeps any other caller inside of the table.
        return self.emit(relax.op.take(self.parameters[table], indices, axis=0, mode="clip"))

    def linear(self, x: relax.Expr, name: str) -> relax.Var:
        """``x [seq, K] @ W [K, N]``, plus the bias when the layer ``name`` has one."""
        y = self.emit(relax.op.matmul(x, self.parameters[f"{name}.weight"]))
        bias = self.parameters.get(f"{name}.bias")
        return y if bias is None else self.add(y, bias)

    def add(self, *values: relax.Expr) -> relax.Var:
        """The sum of two or more values, from the left."""
        total = values[0]
        for value in values[1:]:
            total = self.emit(relax.op.add(total, value))
        return total

    def rms_norm(self, x: relax.Expr, name: str) -> relax.Var:
        """RMS norm over the last axis."""
        weight = self.parameters[f"{name}.weight"]
        return self.emit(relax.op.nn.rms_norm(x, weight, axes=[-1], epsilon=self.config.norm_eps))

    def layer_norm(self, x: relax.Expr, name: str) -> relax.Var:
        """Layer norm over the last axis."""
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return self.emit(relax.op.nn.layer_norm(x, weight, bias, axes=[-1], epsilon=self.config.norm_eps))

    def head_norm(self, x: relax.Expr, name: str) -> relax.Expr:
        """RMS norm of each head of ``x [seq, heads, head_dim]``, when the layer ``name`` exists."""
        return self.rms_norm(x, name) if f"{name}.weight" in self.parameters else x

    def activation(self, x: relax.Expr) -> relax.Var:
        """The model's activation function."""
        return self.emit(getattr(relax.op.nn, self.config.activation)(x))

    def columns(self, x: relax.Expr, begin: int, end: int) -> relax.Var:
        """Part of the last axis."""
        return self.emit(relax.op.strided_slice(x, [x.ty.ndim - 1], [begin], [end], assume_inbound=True))

    def heads(self, x: relax.Expr, count: int) -> relax.Var:
        """[seq, count * head_dim] -> [seq, count, head_dim]."""
        return self.emit(relax.op.reshape(x, [self.seq, count, self.config.head_dim]))

    def rope_rows(self) -> tuple[relax.Var, relax.Var]:
        """Cosines and sines of the new tokens' positions, [seq, 1, rotated channels]."""
        cos, sin = (self._rope_rows(table) for table in (ROPE_COS, ROPE_SIN))
        return cos, sin

    def _rope_rows(self, table: str) -> relax.Var:
        pairs = self._rows(table, self.positions)
        both = self.emit(relax.op.concat([pairs, pairs], axis=1))
        return self.emit(relax.op.expand_dims(both, [1]))

    def rotate(self, x: relax.Expr, cos: relax.Expr, sin: relax.Expr) -> relax.Var:
        """Rotary embedding of the first channels of each head of ``x [seq, heads, head_dim]``:
        ``x * cos + rotate_half(x) * sin``; channels beyond the tables' width stay as they are.
        """
        dim, width = self.config.head_dim, int(cos.ty.shape.values[-1])
        rotated = x if width == dim else self.columns(x, 0, width)
        low, high = self.columns(rotated, 0, width // 2), self.columns(rotated, width // 2, width)
        half = self.emit(relax.op.concat([self.emit(relax.op.negative(high)), low], axis=2))
        straight = self.emit(relax.op.multiply(rotated, cos))
        rotated = self.add(straight, self.emit(relax.op.multiply(half, sin)))
        if width == dim:
            return rotated
        return self.emit(relax.op.concat([rotated, self.columns(x, width, dim)], axis=2))

    def attention(self, q: relax.Expr, k: relax.Expr, v: relax.Expr) -> relax.Var:
        """Appends the keys and values to the next layer's caches; attends causally to all of them.

        Takes ``[seq, heads, head_dim]`` each, returns [seq, heads * head_dim].
        """
        keys, values = self._append(k), self._append(v)
        q, k, v = (self.emit(relax.op.expand_dims(x, [0])) for x in (q, keys, values))
        window = self.config.sliding_window
        mixed = self.emit(relax.op.nn.attention(q, k, v, causal_mask="BottomRight", window_size=window))
        return self.emit(relax.op.reshape(mixed, [self.seq, self.config.num_heads * self.config.head_dim]))

    def _append(self, rows: relax.Expr) -> relax.Var:
        """The whole cache: earlier tokens' rows, then the new ones, [past + seq, kv_heads, head_dim]."""
        cache = self.caches[len(self.appended)]
        self.appended.append(self.emit(relax.op.concat([cache, rows], axis=0)))
        return self.appended[-1]


def cache_names(num_layers: int) -> list[str]:
    """The caches of a model, in argument order."""
    return [f"{kind}_cache_{layer}" for layer in range(num_layers) for kind in ("k", "v")]


def rope_tables(config: ModelConfig) -> dict[str, Table]:
    """Float32 tables [max_positions, rotated channels / 2] of a model with rotary embeddings."""
    rope = config.rope
    assert rope is not None
    shape = (config.max_positions, rope.dim // 2)
    return {
        ROPE_COS: Table(shape, lambda: rope.tables(config.max_positions)[0]),
        ROPE_SIN: Table(shape, lambda: rope.tables(config.max_positions)[1]),
    }
