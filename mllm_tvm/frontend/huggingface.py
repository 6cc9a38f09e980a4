"""Hugging Face model directories: ``config.json``, safetensors weights, ``tokenizer.json``."""

from __future__ import annotations

from pathlib import Path

from mllm_tvm.frontend.assemble import assemble, find_architecture
from mllm_tvm.frontend.builder import LM_HEAD
from mllm_tvm.frontend.checkpoint import Checkpoint
from mllm_tvm.frontend.config import CONFIG_NAME, ConfigReader, read_json
from mllm_tvm.frontend.model import Model
from mllm_tvm.tokenizer import Tokenizer


def load_directory(directory: Path) -> Model:
    """Imports a model directory; its weights are checked now and read when asked for.

    Raises:
        ModelError: a file is missing or damaged, or the model is of an unsupported kind.
    """
    reader = ConfigReader(directory / CONFIG_NAME, read_json(directory / CONFIG_NAME))
    architecture = find_architecture(reader)
    config = architecture.read_config(reader)
    checkpoint = Checkpoint(directory)
    checkpoint.add_prefix(architecture.base_prefix, kept=[LM_HEAD])
    tokenizer = Tokenizer.from_directory(
        directory, config.bos_token_id, config.eos_token_ids, config.vocab_size
    )
    content_hash = checkpoint.content_hash(directory / CONFIG_NAME)
    return assemble(config, reader.settings, checkpoint, content_hash, tokenizer, directory)
