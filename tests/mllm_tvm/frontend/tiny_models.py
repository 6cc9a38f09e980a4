"""Small random models as Hugging Face directories, and what transformers computes for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB_SIZE = 320
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]

TOKENS = [1, 40, 7, 200, 319, 5, 77, 78, 79, 12, 300, 2, 64, 9, 9, 31, 30]
"""What models are compared on."""
MAX_ERROR = 1e-3
"""Of logits, against those of another implementation in float32."""

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

DEFAULTS: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What the configurations of these call by other names.
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
OPT: dict[str, Any] = {"ffn_dim": 96, "word_embed_proj_dim": 64}


def save_llama(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    model_type: str = "llama",
    **changes: Any,
) -> Path:
    """Saves a random Llama (or relative) of ``DEFAULTS`` with ``changes``; returns ``path``."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**DEFAULTS, **changes}))
    for name, parameter in model.named_parameters():
        # transformers makes norms 1 and biases 0, which would hide a forgotten one.
        if name.endswith((".bias", "norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.to(dtype).save_pretrained(path, max_shard_size=max_shard_size)
    byte_level_tokenizer().save(str(path / "tokenizer.json"))
    return path


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer with ``VOCAB_SIZE`` tokens and ``SPECIAL_TOKENS`` first."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog sat on the cat"] * 4, trainer)
    return tokenizer


def change_config(path: Path, **changes: Any) -> Path:
    """Edits ``config.json`` in a model directory."""
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def edit_weights(path: Path, edit: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """Edits the tensors of an unsharded checkpoint."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors")
    return path


def reference_logits(path: Path, token_ids: Sequence[int]) -> np.ndarray:
    """Logits [seq, vocab] of transformers in float32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([list(token_ids)])).logits[0].numpy()
