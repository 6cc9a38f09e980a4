"""Hugging Face model directories to Relax modules."""

from mllm_tvm.frontend.config import ModelConfig
from mllm_tvm.frontend.load import load_model
from mllm_tvm.frontend.model import Model

__all__ = ["Model", "ModelConfig", "load_model"]
