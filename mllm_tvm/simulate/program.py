"""The functions one chunk of a prompt runs, for a model and a configuration.

Sequential block: norm, qkv, attention, o, norm, gate-up, activation, down. Parallel block (Phi): qkv and up
read the same norm. Each linear of a layer that is not pruned has a shadow on the CPU. Neighbours on the NPU
that form a chain become one function: what is between them never leaves the NPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .configuration import Configuration
from .cost import Work
from .models import ModelShape

OUTLIER_CHANNELS = 10
"""Non-zero channels of a shadow's input: the paper counts 5 to 15 in a layer."""

_FLOAT, _INT8 = 4, 1

# Bytes an element-wise function reads and writes for one element: (in one pass, one operator at a time).
_DEQUANTIZE = (8, 8)
_ROTARY = (0, 8)  # in one pass it is part of the dequantization
_QUANTIZE = (5, 9)  # scale, round, clip and cast 5; find outliers 4
_ADD_NORM_QUANTIZE = (17, 41)  # dequantize 8, add 12, norm 12, quantize 9
_GATE = (9, 45)  # dequantize two 16, activation 8, product 12, quantize 9
_ACTIVATION = (5, 25)  # dequantize 8, activation 8, quantize 9


@dataclass(frozen=True)
class Op:
    """One function of a layer. ``in_bytes`` and ``out_bytes`` are a row's activations, in and out."""

    name: str
    layer: int
    processor: str
    work: Work
    deps: tuple[str, ...]
    in_bytes: int = 0
    out_bytes: int = 0
    head: bool = False
    """Runs on the last row of the prompt only."""
    parts: tuple[str, ...] = ()
    """Functions it was joined from; empty for one that stands alone."""

    @property
    def function(self) -> str:
        """What it computes, without the layer."""
        return "+".join(self.parts) or self.name.split(".", 1)[1]

    @property
    def reads_cache(self) -> bool:
        """Whether it attends to earlier chunks."""
        return self.work.context_macs > 0

    def cost(self) -> Work:
        """Its work; on the NPU with the transfers."""
        if self.processor != "npu":
            return self.work
        return replace(self.work, io_bytes=self.in_bytes + self.out_bytes)


def chunk_program(model: ModelShape, configuration: Configuration) -> tuple[Op, ...]:
    """The functions of one chunk in an order that respects their dependencies."""
    builder = _Builder(model, configuration)
    for layer in range(model.layers):
        builder.add_layer(layer)
    builder.add_head()
    return _fuse(builder.ops)


def shadow_layers(layers: int, pruned_share: float) -> frozenset[int]:
    """Layers that keep their shadows: those nearest to input and output matter most."""
    kept = layers - round(layers * pruned_share)
    by_importance = sorted(range(layers), key=lambda layer: (min(layer, layers - 1 - layer), layer))
    return frozenset(by_importance[:kept])


class _Builder:
    def __init__(self, model: ModelShape, configuration: Configuration) -> None:
        self.ops: list[Op] = []
        self._model = model
        self._configuration = configuration
        self._shadows = shadow_layers(model.layers, configuration.pruned_share)
        self._stream: tuple[str, ...] = ()
        """What has to end before the residual stream is complete."""
        self._head = False

    def add_layer(self, layer: int) -> None:
        m = self._model
        norm = self._norm("norm1", layer)
        if m.parallel_block:
            self._stream = self._parallel(layer, norm)
            return
        qkv = self._linear("qkv", layer, m.hidden, m.qkv_columns, norm)
        self._stream = self._attend(layer, qkv)
        up = self._linear("up", layer, m.hidden, m.up_columns, self._norm("norm2", layer))
        self._stream = self._finish_feed_forward(layer, up)

    def _parallel(self, layer: int, norm: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        if self._configuration.merges_linears:
            qkv = up = self._linear("qkv-up", layer, m.hidden, m.qkv_columns + m.up_columns, norm)
        else:
            qkv = self._linear("qkv", layer, m.hidden, m.qkv_columns, norm)
            up = self._linear("up", layer, m.hidden, m.up_columns, norm)
        return (*self._attend(layer, qkv), *self._finish_feed_forward(layer, up))

    def _attend(self, layer: int, qkv: tuple[str, ...]) -> tuple[str, ...]:
        """Attention and its output projection; what follows keys and values is the head in the last layer."""
        m = self._model
        self._head = self._configuration.last_row_head and layer == m.layers - 1
        attended = self._attention(layer, qkv)
        return self._linear("o", layer, m.heads * m.head_dim, m.hidden, attended)

    def add_head(self) -> None:
        m = self._model
        work = Work(weights=m.head_weights, float_bytes=17 * m.hidden)
        self.ops.append(Op(f"{m.layers}.head", m.layers, "cpu", work, self._stream, head=True))

    def _finish_feed_forward(self, layer: int, up: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        return self._linear("down", layer, m.intermediate, m.hidden, self._activation(layer, up))

    def _norm(self, name: str, layer: int) -> tuple[str, ...]:
        """Add to the residual stream, normalize, quantize."""
        hidden = self._model.hidden
        adds_shadow = (layer if name == "norm2" else layer - 1) in self._shadows
        processor = self._placed(self._configuration.placement.norm, adds_shadow)
        work = Work(float_bytes=self._bytes(_ADD_NORM_QUANTIZE, processor) * hidden)
        op = Op(f"{layer}.{name}", layer, processor, work, self._stream, _FLOAT * hidden, _INT8 * hidden)
        return self._append(op)

    def _activation(self, layer: int, deps: tuple[str, ...]) -> tuple[str]:
        m = self._model
        c = self._configuration
        merged = m.parallel_block and c.merges_linears
        processor = "cpu" if merged else self._placed(c.placement.activation, layer in self._shadows)
        per_element = self._bytes(_GATE if m.gated else _ACTIVATION, processor)
        work = Work(float_bytes=per_element * m.intermediate)
        op = Op(f"{layer}.activation", layer, processor, work, deps, _FLOAT * m.up_columns, m.intermediate)
        return self._append(op)

    def _placed(self, processor: str, adds_shadow: bool) -> str:
        return "cpu" if adds_shadow and self._configuration.merges_on_cpu else processor

    def _bytes(self, per_element: tuple[int, int], processor: str) -> int:
        """The NPU's functions are fused by any stack; the CPU's only by one that compiles them."""
        return per_element[0 if processor == "npu" or self._configuration.fuses_float else 1]

    def _attention(self, layer: int, deps: tuple[str, ...]) -> tuple[str]:
        """Rotary embedding, scores, softmax, weighted sum, quantize; the float work of one row and token."""
        m = self._model
        width = m.heads * m.head_dim
        rotated = (m.heads + m.kv_heads) * m.head_dim
        on = self._configuration.placement.attention
        float_bytes = self._bytes(_DEQUANTIZE, on) * m.qkv_columns + self._bytes(_ROTARY, on) * rotated
        float_bytes += self._bytes(_QUANTIZE, on) * width
        # Queries that share a key-value head are rows of one product.
        elements = 2 * m.kv_heads * m.head_dim
        work = Work(float_bytes=float_bytes, context_macs=2 * width, context_elements=elements, heads=m.heads)
        return self._append(Op(f"{layer}.attention", layer, on, work, deps, _FLOAT * m.qkv_columns, width))

    def _linear(self, name: str, layer: int, k: int, n: int, deps: tuple[str, ...]) -> tuple[str, ...]:
        """The linear and, in a layer that keeps it, its shadow: both end before the result is used."""
        shadowed = layer in self._shadows
        processor = self._configuration.placement.linear
        c = self._configuration
        waits = int(shadowed and not c.merges_on_cpu)
        work = Work(weights=k * n, grouped=c.grouped, plain_shape=c.plain_shapes, waits=waits)
        linear = self._append(Op(f"{layer}.{name}", layer, processor, work, deps, _INT8 * k, _FLOAT * n))
        if not shadowed:
            return linear
        # The residual is scanned for its non-zero channels; the result is added to the integer one.
        float_bytes = _FLOAT * (k + 2 * n)
        shadow = Work(float_bytes=float_bytes, float_macs=OUTLIER_CHANNELS * n)
        return linear + self._append(Op(f"{layer}.{name}.shadow", layer, "cpu", shadow, deps))

    def _append(self, op: Op) -> tuple[str]:
        if self._head:  # a single row is faster on the CPU
            op = replace(op, processor="cpu", head=True)
        self.ops.append(op)
        return (op.name,)


def _fuse(ops: list[Op]) -> tuple[Op, ...]:
    """Joins each NPU function to the one before it when neither has another neighbour."""
    consumers: dict[str, int] = {}
    for op in ops:
        for dep in op.deps:
            consumers[dep] = consumers.get(dep, 0) + 1
    fused: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for op in ops:
        deps = tuple(dict.fromkeys(renamed[dep] for dep in op.deps))
        before = fused[deps[0]] if len(deps) == 1 else None
        chain = before is not None and consumers[op.deps[0]] == 1 and len(op.deps) == 1
        # What attends to earlier chunks is not shared by chunks, and so no part of a shared function.
        chain = chain and before is not None and not before.reads_cache and not op.reads_cache
        if before is not None and chain and before.processor == op.processor == "npu":
            fused[before.name] = _join(before, op)
            renamed[op.name] = before.name
        else:
            fused[op.name] = replace(op, deps=deps)
            renamed[op.name] = op.name
    return tuple(fused.values())


def _join(first: Op, second: Op) -> Op:
    parts = (*first.function.split("+"), second.function)
    return replace(first, work=first.work + second.work, out_bytes=second.out_bytes, parts=parts)
