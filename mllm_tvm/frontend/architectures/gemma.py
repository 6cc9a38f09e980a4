"""Gemma: Llama with a scaled embedding, norms whose weights are stored minus one, and GeGLU."""

from __future__ import annotations

from tvm import relax

from mllm_tvm.frontend.architectures.llama import REDUNDANT, decoder, llama_config, llama_parameters
from mllm_tvm.frontend.builder import DecoderBuilder
from mllm_tvm.frontend.config import ConfigReader, ModelConfig
from mllm_tvm.frontend.parameters import Spec
from mllm_tvm.frontend.rope import read_rope

__all__ = ["REDUNDANT", "forward", "parameters", "read_config"]

_HEAD_DIM = 256


def read_config(reader: ConfigReader) -> ModelConfig:
    """The settings of a Gemma."""
    reader.only("use_bidirectional_attention", None, False)
    # "hidden_act" is what old files call the exact GELU by mistake; "hidden_activation" corrects it.
    corrected = reader.value("hidden_activation") is not None
    name = "hidden_activation" if corrected else "hidden_act"
    dim = reader.integer("head_dim", _HEAD_DIM)
    return llama_config(
        reader.aliased({"hidden_act": name}),
        activation=reader.activation(name, "gelu_pytorch_tanh"),
        head_dim=dim,
        rope=read_rope(reader, dim),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
    )


def parameters(config: ModelConfig) -> dict[str, Spec]:
    """Parameter name -> where it comes from, in the argument order of ``main``."""
    return llama_parameters(config, norm_offset=1.0)


def forward(b: DecoderBuilder) -> relax.Expr:
    """Emits the model; returns the logits [seq, vocab]."""
    scale = relax.const(b.config.hidden_size**0.5, "float32")
    return decoder(b, b.emit(relax.op.multiply(b.embed(), scale)))
