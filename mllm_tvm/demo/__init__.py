"""The embedded default model: a small Llama that the project trained itself, on stories of its own making."""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
