"""Llama graphs of fused operators, as ONNX Runtime's GenAI builder writes them and as opset 23 has them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoModelForCausalLM

BATCH, SEQ, PAST, TOTAL = "batch", "sequence", "past", "total"


@dataclass(frozen=True)
class Style:
    """How to write a graph.

    ``packed``: one product for queries, keys and values. ``rotary``: ``inside`` of GroupQueryAttention, or
    a ``separate`` operator. ``window``: what a token attends to, -1 for all.
    """

    packed: bool = True
    rotary: str = "inside"
    interleaved: bool = False
    position_ids: bool = False
    window: int = -1
    external: bool = False
    names: tuple[str, str] = ("past_key_values.{}.key", "past_key_values.{}.value")


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], outputs: int = 1, domain: str = "", **attrs: Any) -> list[str]:
        names = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op, inputs, names, f"{op}_{len(self.nodes)}", domain=domain, **attrs)
        )
        return names

    def one(self, op: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        return self.add(op, list(inputs), 1, domain, **attrs)[0]

    def weight(self, name: str, array: np.ndarray) -> str:
        if all(tensor.name != name for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def result(self, value: str, name: str, shape: list[Any]) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


class _Writer:
    def __init__(self, source: Path, style: Style):
        self.style = style
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        self.config = model.config
        self.tensors = {name: value.numpy() for name, value in model.state_dict().items()}
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.size = model.model.layers[0].self_attn.head_dim
        self.graph = _Graph()

    def matmul(self, x: str, *names: str) -> str:
        """A linear layer, or several side by side."""
        array = np.concatenate([self.tensors[f"{name}.weight"].T for name in names], axis=1)
        y = self.graph.one("MatMul", x, self.graph.weight("+".join(names) + ".MatMul", array))
        if f"{names[0]}.bias" not in self.tensors:
            return y
        bias = np.concatenate([self.tensors[f"{name}.bias"] for name in names])
        return self.graph.one("Add", y, self.graph.weight("+".join(names) + ".bias", bias))

    def own(self, name: str) -> str:
        return self.graph.weight(name, self.tensors[name])

    def tables(self) -> tuple[str, str]:
        pairs = np.arange(0, self.size, 2) / self.size
        angles = np.arange(self.config.max_position_embeddings)[:, None] * 10000.0**-pairs
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return self.graph.weight("cos_cache", cos), self.graph.weight("sin_cache", sin)

    def mlp(self, x: str, prefix: str) -> str:
        gate, up = self.matmul(x, f"{prefix}.gate_proj"), self.matmul(x, f"{prefix}.up_proj")
        gated = self.graph.one("Mul", self.graph.one("Mul", gate, self.graph.one("Sigmoid", gate)), up)
        return self.matmul(gated, f"{prefix}.down_proj")

    def caches(self, layer: int) -> tuple[str, str]:
        shape = [BATCH, self.kv_heads, PAST, self.size]
        names = [pattern.format(layer) for pattern in self.style.names]
        self.graph.inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names]
        return names[0], names[1]

    def save(self, target: Path, source: Path, opsets: dict[str, int]) -> Path:
        target.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(source / name, target)
        graph = helper.make_graph(
            self.graph.nodes, "decoder", self.graph.inputs, self.graph.outputs, self.graph.weights
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        file = target / "model.onnx"
        onnx.save(
            model, file, save_as_external_data=self.style.external, location="weights.bin", size_threshold=128
        )
        return file

    def integer(self, name: str, shape: list[Any]) -> str:
        self.graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
        return name


def write_genai(source: Path, target: Path, style: Style | None = None) -> Path:
    """A graph of GroupQueryAttention, (Skip)SimplifiedLayerNormalization and perhaps RotaryEmbedding."""
    w = _Writer(source, style or Style())
    g, ms = w.graph, "com.microsoft"
    ids, mask = w.integer("input_ids", [BATCH, SEQ]), w.integer("attention_mask", [BATCH, TOTAL])
    positions = w.integer("position_ids", [BATCH, SEQ]) if w.style.position_ids else ""
    one = g.weight("one", np.array([1], np.int64))
    last = g.one("Cast", g.one("Sub", g.one("ReduceSum", mask, one, keepdims=0), one), to=TensorProto.INT32)
    size = g.one("Gather", g.one("Shape", mask), g.weight("axis", np.array(1, np.int64)), axis=0)
    total = g.one("Cast", size, to=TensorProto.INT32)
    x = g.one("Gather", w.own("model.embed_tokens.weight"), ids)
    epsilon = w.config.rms_norm_eps
    norm = w.own("model.layers.0.input_layernorm.weight")
    y = g.one("SimplifiedLayerNormalization", x, norm, axis=-1, epsilon=epsilon, stash_type=1)
    for layer in range(w.config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        names = [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
        packed = w.style.packed
        parts = [w.matmul(y, *names), "", ""] if packed else [w.matmul(y, name) for name in names]
        inside = w.style.rotary == "inside"
        if not inside:
            rotary = {"interleaved": int(w.style.interleaved), "domain": ms}
            for i, heads in ((0, w.heads), (1, w.kv_heads)):
                parts[i] = g.one(
                    "RotaryEmbedding", parts[i], positions, *w.tables(), num_heads=heads, **rotary
                )
        tables = w.tables() if inside else ("", "")
        inputs = [*parts, *w.caches(layer), last, total, *tables]
        inputs += [positions] if w.style.position_ids and inside else []
        mixed, keys, values = g.add(
            "GroupQueryAttention",
            inputs,
            3,
            ms,
            num_heads=w.heads,
            kv_num_heads=w.kv_heads,
            do_rotary=int(inside),
            rotary_interleaved=int(w.style.interleaved),
            local_window_size=w.style.window,
        )
        for name, value in (("key", keys), ("value", values)):
            g.result(value, f"present.{layer}.{name}", [BATCH, w.kv_heads, TOTAL, w.size])
        attended = w.matmul(mixed, f"{prefix}.self_attn.o_proj")
        skip = "SkipSimplifiedLayerNormalization"
        norm = w.own(f"{prefix}.post_attention_layernorm.weight")
        y, _, _, x = g.add(skip, [x, attended, norm], 4, ms, epsilon=epsilon)
        following = f"model.layers.{layer + 1}.input_layernorm.weight"
        norm = w.own(following if following in w.tensors else "model.norm.weight")
        y, _, _, x = g.add(skip, [x, w.mlp(y, f"{prefix}.mlp"), norm], 4, ms, epsilon=epsilon)
    g.result(w.matmul(y, "lm_head"), "logits", [BATCH, SEQ, w.config.vocab_size])
    g.outputs.insert(0, g.outputs.pop())
    return w.save(target, source, {"": 21, ms: 1})


def write_opset23(source: Path, target: Path, *, flat: bool, style: Style | None = None) -> Path:
    """A graph of Attention with caches, RMSNormalization and RotaryEmbedding; ``flat``: heads not split."""
    w = _Writer(source, style or Style(position_ids=True))
    g = w.graph
    ids, positions = w.integer("tokens", [BATCH, SEQ]), w.integer("pos", [BATCH, SEQ])
    x = g.one("Gather", w.own("model.embed_tokens.weight"), ids)
    epsilon = w.config.rms_norm_eps

    def split(value: str, heads: int) -> str:
        shape = g.weight(f"shape_{heads}", np.array([0, 0, heads, w.size], np.int64))
        return g.one("Transpose", g.one("Reshape", value, shape), perm=[0, 2, 1, 3])

    for layer in range(w.config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        norm = w.own(f"{prefix}.input_layernorm.weight")
        y = g.one("RMSNormalization", x, norm, axis=-1, epsilon=epsilon)
        parts = [w.matmul(y, f"{prefix}.self_attn.{part}_proj") for part in "qkv"]
        heads = [w.heads, w.kv_heads, w.kv_heads]
        parts = parts if flat else [split(part, n) for part, n in zip(parts, heads, strict=True)]
        for i in (0, 1):
            attrs = {"num_heads": heads[i]} if flat else {}
            attrs["interleaved"] = int(w.style.interleaved)
            parts[i] = g.one("RotaryEmbedding", parts[i], *w.tables(), positions, **attrs)
        attrs = {"q_num_heads": w.heads, "kv_num_heads": w.kv_heads} if flat else {}
        inputs = [*parts, "", *w.caches(layer)]
        mixed, keys, values = g.add("Attention", inputs, 3, is_causal=1, **attrs)
        for name, value in (("key", keys), ("value", values)):
            g.result(value, f"present.{layer}.{name}", [BATCH, w.kv_heads, TOTAL, w.size])
        if not flat:
            shape = g.weight("joined", np.array([0, 0, w.heads * w.size], np.int64))
            mixed = g.one("Reshape", g.one("Transpose", mixed, perm=[0, 2, 1, 3]), shape)
        x = g.one("Add", x, w.matmul(mixed, f"{prefix}.self_attn.o_proj"))
        norm = w.own(f"{prefix}.post_attention_layernorm.weight")
        y = g.one("RMSNormalization", x, norm, axis=-1, epsilon=epsilon)
        x = g.one("Add", x, w.mlp(y, f"{prefix}.mlp"))
    y = g.one("RMSNormalization", x, w.own("model.norm.weight"), axis=-1, epsilon=epsilon)
    g.result(w.matmul(y, "lm_head"), "logits", [BATCH, SEQ, w.config.vocab_size])
    g.outputs.insert(0, g.outputs.pop())
    return w.save(target, source, {"": 23})
