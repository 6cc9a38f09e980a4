"""One file for each supported Hugging Face ``model_type``, named after it.

Such a module has three functions, and these constants if they differ from the defaults below:

* ``read_config(reader) -> ModelConfig``: checks ``config.json``;
* ``parameters(config) -> {name: Spec}``: the checkpoint's tensors, in the argument order of ``main``;
* ``forward(builder) -> logits``: emits the graph;
* ``BASE_PREFIX``: what a base model's checkpoint leaves out of its tensors' names (``""``);
* ``REDUNDANT``: suffixes of tensors that follow from others (``()``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from tvm import relax

from mllm_tvm.frontend.builder import DecoderBuilder
from mllm_tvm.frontend.config import ConfigReader, ModelConfig
from mllm_tvm.frontend.parameters import Spec


@dataclass(frozen=True)
class Architecture:
    """How to import one ``model_type``; see the package's description."""

    read_config: Callable[[ConfigReader], ModelConfig]
    parameters: Callable[[ModelConfig], dict[str, Spec]]
    forward: Callable[[DecoderBuilder], relax.Expr]
    base_prefix: str = ""
    redundant: tuple[str, ...] = ()


def supported() -> list[str]:
    """The ``model_type`` of every supported architecture."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(model_type: str) -> Architecture:
    """The importer of ``model_type``, one of :func:`supported`."""
    module = importlib.import_module(f"{__name__}.{model_type}")
    return Architecture(
        module.read_config,
        module.parameters,
        module.forward,
        getattr(module, "BASE_PREFIX", ""),
        getattr(module, "REDUNDANT", ()),
    )
