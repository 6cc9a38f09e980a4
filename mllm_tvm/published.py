"""Settings of published models, for work without their weights: each one's ``config.json``, by name.

The one place where sizes of real models stand; loads no TVM.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mllm_tvm.errors import ModelError

CONFIG_DIR = Path(__file__).parent / "configs"
PAPER_MODELS = ("qwen1.5-1.8b", "gemma-2b", "phi-2", "llama-2-7b", "mistral-7b")
"""The models that the paper measures."""


def published_names() -> list[str]:
    """Names of the models whose settings come with the project."""
    return sorted(file.stem for file in CONFIG_DIR.glob("*.json"))


def published_path(name: str) -> Path | None:
    """The ``config.json`` of the published model ``name``, in any case; None when there is none."""
    known = name.lower() in published_names()
    return CONFIG_DIR / f"{name.lower()}.json" if known else None


def published_settings(name: str) -> dict[str, Any]:
    """The settings of a published model; raises ModelError naming those there are."""
    path = published_path(name)
    if path is None:
        raise ModelError(f"unknown model {name!r}: expected one of {', '.join(published_names())}")
    return json.loads(path.read_text(encoding="utf-8"))
