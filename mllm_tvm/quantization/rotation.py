"""A Hadamard rotation of the residual stream: the same model in a basis where channels look alike.

With an orthogonal ``H`` the residual stream ``x`` becomes ``x H``: what writes it (embedding, ``o_proj``,
``down_proj``) is multiplied by ``H`` on the right, what reads it by ``H`` transposed on the left. RMS norms
commute with ``H`` once their weights are folded into the linears that follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from mllm_tvm.errors import CompileError
from mllm_tvm.frontend.model import Model

# Models of these families have RMS norms without offsets, in front of linears only.
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_READERS = {
    "self_attn.q_proj.weight": "input_layernorm.weight",
    "self_attn.k_proj.weight": "input_layernorm.weight",
    "self_attn.v_proj.weight": "input_layernorm.weight",
    "mlp.gate_proj.weight": "post_attention_layernorm.weight",
    "mlp.up_proj.weight": "post_attention_layernorm.weight",
}
_WRITERS = ("o_proj.weight", "down_proj.weight", "o_proj.bias", "down_proj.bias", "embed_tokens.weight")
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight")


def rotate(model: Model) -> Model:
    """``model`` in the rotated basis: the same function up to float rounding.

    Raises CompileError for a family whose norms this does not know.
    """
    if model.config.architecture not in _FAMILIES:
        raise CompileError(
            f"cannot rotate {model.path}: model_type {model.config.architecture!r} is not one of {_FAMILIES}"
        )
    # Another hash: a recipe of the rotated model does not fit the original.
    digest = hashlib.sha256(f"{model.config.content_hash} hadamard".encode()).hexdigest()
    parameters = _Rotated(model.parameters, hadamard(model.config.hidden_size))
    return replace(model, parameters=parameters, config=replace(model.config, content_hash=digest))


def hadamard(n: int) -> np.ndarray:
    """An orthogonal matrix [n, n] float64: Hadamard / sqrt(n), times a cosine basis for n without one."""
    matrix: np.ndarray = np.ones((1, 1))
    size = 1
    for paley in (12, 20):
        if n % paley == 0 and (n // paley) & (n // paley - 1) == 0:
            matrix, size = _paley(paley - 1), paley
    while n % (2 * size) == 0:
        matrix, size = np.kron(matrix, [[1, 1], [1, -1]]), 2 * size
    return np.kron(matrix / np.sqrt(size), _cosines(n // size))


def _paley(q: int) -> np.ndarray:
    """The Hadamard matrix of order q + 1, q a prime with q = 3 mod 4."""
    squares = {(i * i) % q for i in range(1, q)}
    character = [0, *(1 if i in squares else -1 for i in range(1, q))]
    matrix = np.ones((q + 1, q + 1))
    matrix[1:, 1:] = [[character[(j - i) % q] for j in range(q)] for i in range(q)]
    matrix[1:, 1:] -= np.eye(q)
    return matrix


def _cosines(n: int) -> np.ndarray:
    """The orthonormal cosine basis [n, n]."""
    k, i = np.arange(n)[:, None], np.arange(n)
    basis = np.cos(np.pi * (i + 0.5) * k / n) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return basis


class _Rotated(Mapping[str, np.ndarray]):
    """Parameters in the rotated basis, made when asked for."""

    def __init__(self, parameters: Mapping[str, np.ndarray], matrix: np.ndarray):
        self.parameters = parameters
        self.matrix = matrix

    def __getitem__(self, name: str) -> np.ndarray:
        value = self.parameters[name]
        norm = self._norm(name)
        if name.endswith(_NORMS):
            return np.ones_like(value)
        if norm is not None:
            scaled = self.parameters[norm].astype(np.float64)[:, None] * value
            return np.ascontiguousarray(self.matrix.T @ scaled, dtype=value.dtype)
        if name.endswith(_WRITERS):
            return np.ascontiguousarray(value.astype(np.float64) @ self.matrix, dtype=value.dtype)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def _norm(self, name: str) -> str | None:
        """The norm before a linear that reads the residual stream."""
        if name == "lm_head.weight":
            return "model.norm.weight"
        found = [(reader, norm) for reader, norm in _READERS.items() if name.endswith(reader)]
        return name.removesuffix(found[0][0]) + found[0][1] if found else None
