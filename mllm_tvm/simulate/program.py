"""The functions one chunk of a prompt runs, for a model and a configuration.

Sequential block: norm, qkv, attention, o, norm, gate-up, activation, down. Parallel block (Phi): qkv and up
read the same norm. Each linear of a layer that is not pruned has a shadow on the CPU. Neighbours on the NPU
that form a chain become one function: what is between them never leaves the NPU. An integer MLP is one NPU
function whatever its outliers.
"""

from __future__ import annotations

from dataclasses import replace

from .configuration import Configuration
from .cost import Work
from .models import ModelShape
from .op import Op, join_chains

OUTLIER_CHANNELS = 10
"""Non-zero channels of a shadow's input: the paper counts 5 to 15 in a layer."""

_FLOAT, _INT8 = 4, 1

# Bytes an element-wise function reads and writes for one element: (in one pass, one operator at a time).
_DEQUANTIZE = (8, 8)
_ROTARY = (0, 8)  # in one pass it is part of the dequantization
_ANGLES = 8  # cosine and sine of a head's channel, for each kernel of the compiler's that reads them
_QUANTIZE = (5, 9)  # scale, round, clip and cast 5; find outliers 4
# In one pass integers 4, the residual stream 8, quantized 1; else dequantize 8, add 12, norm 12, quantize 9.
_ADD_NORM_QUANTIZE = (13, 41)
_GATE = (9, 45)  # dequantize two 16, activation 8, product 12, quantize 9
_ACTIVATION = (5, 25)  # dequantize 8, activation 8, quantize 9

# Packets of the integer MLP's kernel beside its linears, counted on the simulated device (docs/kernels.md).
_GLU_PACKETS = 0.40  # a channel between the linears
_SCAN_PACKETS = 0.03  # an upper byte
_WORD_PACKETS = 1.4 / 32  # an output of a word of four upper bytes that is not zero


def chunk_program(model: ModelShape, configuration: Configuration) -> tuple[Op, ...]:
    """The functions of one chunk in an order that respects their dependencies."""
    builder = _Builder(model, configuration)
    for layer in range(model.layers):
        builder.add_layer(layer)
    builder.add_head()
    return join_chains(builder.ops)


def shadow_layers(layers: int, pruned_share: float) -> frozenset[int]:
    """Layers that keep their shadows: those nearest to input and output matter most."""
    kept = layers - round(layers * pruned_share)
    by_importance = sorted(range(layers), key=lambda layer: (min(layer, layers - 1 - layer), layer))
    return frozenset(by_importance[:kept])


def mlp_packets(inputs: int, channels: int, outputs: int, outliers: int = 0) -> float:
    """Vector packets of a row of an integer MLP beside its linears; each linear's input has ``outliers``."""
    words = outliers * (2 * channels + outputs)
    return _GLU_PACKETS * channels + _SCAN_PACKETS * (inputs + channels) + _WORD_PACKETS * words


class _Builder:
    def __init__(self, model: ModelShape, configuration: Configuration) -> None:
        self.ops: list[Op] = []
        self._model = model
        self._configuration = configuration
        self._shadows = shadow_layers(model.layers, configuration.pruned_share)
        self._stream: tuple[str, ...] = ()
        """What has to end before the residual stream is complete."""
        self._head = False
        self._integer_mlp = configuration.fuses_mlp(model.gated)

    def add_layer(self, layer: int) -> None:
        m = self._model
        norm = self._norm("norm1", layer)
        if m.parallel_block:
            self._stream = self._parallel(layer, norm)
            return
        self._stream = self._attend(layer, self._linear("qkv", layer, m.hidden, m.qkv_columns, norm))
        norm = self._norm("norm2", layer)
        if self._integer_mlp:
            self._stream = self._mlp(layer, norm)
            return
        up = self._linear("up", layer, m.hidden, m.up_columns, norm)
        self._stream = self._down(layer, self._activation(layer, up))

    def add_head(self) -> None:
        m = self._model
        work = Work(weights=m.head_weights, float_bytes=_ADD_NORM_QUANTIZE[0] * m.hidden)
        self.ops.append(Op(f"{m.layers}.head", m.layers, "cpu", work, self._stream, head=True))

    def _parallel(self, layer: int, norm: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        if self._configuration.merges_linears:
            return self._merged_parallel(layer, norm)
        qkv = self._linear("qkv", layer, m.hidden, m.qkv_columns, norm)
        up = self._linear("up", layer, m.hidden, m.up_columns, norm)
        return (*self._attend(layer, qkv), *self._down(layer, self._activation(layer, up)))

    def _merged_parallel(self, layer: int, norm: tuple[str, ...]) -> tuple[str, ...]:
        """What reads the merged linear is one float function; the next norm is what adds both branches."""
        m = self._model
        both = self._linear("qkv-up", layer, m.hidden, m.qkv_columns + m.up_columns, norm)
        activation_bytes = self._bytes(_ACTIVATION, "cpu") * m.intermediate
        activation_bytes += self._residual_bytes(layer, m.intermediate)
        rotated = self._rotary("rotary-activation", layer, both, activation_bytes)
        attended = self._attention(layer, rotated, self._integers(layer))
        return (*self._down(layer, rotated), *self._output(layer, attended))

    def _attend(self, layer: int, qkv: tuple[str, ...]) -> tuple[str, ...]:
        """Attention and its output projection."""
        m = self._model
        if self._configuration.separates_attention:
            rotated = self._rotary("rotary", layer, qkv)
            return self._output(layer, self._attention(layer, rotated, self._integers(layer)))
        on = self._configuration.placement.attention
        rotary = self._bytes(_ROTARY, on) * (m.heads + m.kv_heads) * m.head_dim
        float_bytes = self._bytes(_DEQUANTIZE, on) * m.qkv_columns + rotary
        float_bytes += self._bytes(_QUANTIZE, on) * m.heads * m.head_dim
        return self._output(layer, self._attention(layer, qkv, Work(float_bytes=float_bytes)))

    def _attention(self, layer: int, deps: tuple[str, ...], work: Work) -> tuple[str, ...]:
        """Scores, softmax, weighted sum, and ``work``. In the last layer the head follows keys and values."""
        m = self._model
        self._head = self._configuration.last_row_head and layer == m.layers - 1
        on = self._configuration.placement.attention
        # Queries that share a key-value head are rows of one product.
        elements = 2 * m.kv_heads * m.head_dim
        work += Work(context_macs=2 * m.heads * m.head_dim, context_elements=elements, heads=m.heads)
        op = Op(f"{layer}.attention", layer, on, work, deps, _FLOAT * m.qkv_columns, m.heads * m.head_dim)
        return self._append(op)

    def _rotary(self, name: str, layer: int, deps: tuple[str, ...], more_bytes: int = 0) -> tuple[str, ...]:
        """Dequantizes queries, keys and values; turns the first two, in one kernel if they have one shape."""
        m = self._model
        rotary = self._bytes(_ROTARY, "cpu") * (m.heads + m.kv_heads) * m.head_dim
        rotary += _ANGLES * m.head_dim * (1 if m.heads == m.kv_heads else 2)
        float_bytes = self._bytes(_DEQUANTIZE, "cpu") * m.qkv_columns + rotary
        return self._float(name, layer, deps, float_bytes + more_bytes)

    def _integers(self, layer: int) -> Work:
        """Attention's kernel writes its result quantized, with what does not fit int8, and nothing else."""
        width = self._model.heads * self._model.head_dim
        return Work(float_bytes=_INT8 * width + self._residual_bytes(layer, width))

    def _residual_bytes(self, layer: int, width: int) -> int:
        """What does not fit int8 is written for the shadow: the paper's cost of it is in its shadows."""
        written = self._configuration.separates_attention and layer in self._shadows
        return _FLOAT * width if written else 0

    def _float(self, name: str, layer: int, deps: tuple[str, ...], float_bytes: int) -> tuple[str, ...]:
        return self._append(Op(f"{layer}.{name}", layer, "cpu", Work(float_bytes=float_bytes), deps))

    def _output(self, layer: int, attended: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        return self._linear("o", layer, m.heads * m.head_dim, m.hidden, attended)

    def _down(self, layer: int, activated: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        return self._linear("down", layer, m.intermediate, m.hidden, activated)

    def _norm(self, name: str, layer: int) -> tuple[str, ...]:
        """Add to the residual stream, normalize, quantize (to two bytes for an integer MLP)."""
        hidden = self._model.hidden
        feeds_mlp = name == "norm2" and self._integer_mlp
        adds_shadow = layer in self._shadows if name == "norm2" else self._ends_in_shadow(layer - 1)
        processor = self._placed(self._configuration.placement.norm, adds_shadow)
        float_bytes = self._bytes(_ADD_NORM_QUANTIZE, processor) * hidden
        float_bytes += _INT8 * hidden if feeds_mlp else self._residual_bytes(layer, hidden)
        if self._model.parallel_block and self._configuration.merges_linears:
            float_bytes += _FLOAT * hidden  # two branches to add
        op = Op(
            f"{layer}.{name}",
            layer,
            processor,
            Work(float_bytes=float_bytes),
            self._stream,
            _FLOAT * hidden,
            (1 + feeds_mlp) * _INT8 * hidden,
        )
        return self._append(op)

    def _ends_in_shadow(self, layer: int) -> bool:
        return layer in self._shadows and not self._integer_mlp

    def _mlp(self, layer: int, deps: tuple[str, ...]) -> tuple[str, ...]:
        """Two-byte inputs, both linears, the activation in integers, outliers multiplied one by one."""
        m = self._model
        outliers = OUTLIER_CHANNELS if layer in self._shadows else 0
        packets = mlp_packets(m.hidden, m.intermediate, m.hidden, outliers)
        work = Work(weights=m.hidden * (m.up_columns + m.intermediate), packets=packets)
        in_bytes, out_bytes = 2 * _INT8 * m.hidden, _FLOAT * m.hidden
        return self._append(Op(f"{layer}.mlp", layer, "npu", work, deps, in_bytes, out_bytes))

    def _activation(self, layer: int, deps: tuple[str, ...]) -> tuple[str, ...]:
        m = self._model
        c = self._configuration
        no_kernel = c.integer_mlp and not self._integer_mlp
        processor = "cpu" if no_kernel else self._placed(c.placement.activation, layer in self._shadows)
        per_element = self._bytes(_GATE if m.gated else _ACTIVATION, processor)
        work = Work(float_bytes=per_element * m.intermediate)
        op = Op(f"{layer}.activation", layer, processor, work, deps, _FLOAT * m.up_columns, m.intermediate)
        return self._append(op)

    def _placed(self, processor: str, adds_shadow: bool) -> str:
        return "cpu" if adds_shadow and self._configuration.merges_on_cpu else processor

    def _bytes(self, per_element: tuple[int, int], processor: str) -> int:
        """The NPU's functions are fused by any stack; the CPU's only by one that compiles them."""
        return per_element[0 if processor == "npu" or self._configuration.fuses_float else 1]

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
