"""Rules of fused operators."""
from __future__ import annotations
from mllm_tvm.frontend.onnx.importer import Rule
FUSED_RULES: dict[str, Rule] = {}
