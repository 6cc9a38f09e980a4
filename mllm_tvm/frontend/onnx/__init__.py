"""Decoders in ONNX files to Relax modules."""

from mllm_tvm.frontend.onnx.load import find_onnx, load_onnx

__all__ = ["find_onnx", "load_onnx"]
