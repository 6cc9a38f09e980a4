"""A model made hard to quantize on purpose: channels scaled up before a norm's weight, down after it.

    python -m tests.benchmarks.hard_model [--model DIR] [--factors 10,30,100] [--stories 40]

The function of the model is unchanged; the inputs of attention and MLP get channels that many times larger
than the others. Prints a JSON object for each factor and scheme (float, naive, ours), as ``mllm-tvm eval``
does, measured by the engine on stories of the project's generator. ``--model``: a Llama directory.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mllm_tvm.build import CompileSettings
from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.demo.stories import stories
from mllm_tvm.evaluate import EvaluationSettings, evaluate

SCHEMES = ("float", "naive", "ours")
# One channel of so many: more of them than a budget of outliers pays for.
EVERY = 32
_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def main() -> None:
    """Prints one JSON object for each factor and scheme."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--factors", default="10,30,100")
    parser.add_argument("--stories", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "stories.txt"
        text.write_text("\n<|endoftext|>\n".join(stories(seed=77, count=args.stories)))
        for factor in map(float, args.factors.split(",")):
            hard = harden(args.model, Path(scratch) / f"hard{factor:g}", factor)
            settings = EvaluationSettings("host", CompileSettings(chunk_lengths=(256,)))
            for result in evaluate(str(hard), [f"perplexity:{text}"], SCHEMES, settings):
                print(json.dumps({"factor": factor, **result, "task": "perplexity"}), flush=True)


def harden(source: Path, output: Path, factor: float) -> Path:
    """Copies a Llama directory with some channels of each norm times ``factor``, its readers divided."""
    shutil.copytree(source, output)
    file = output / "model.safetensors"
    tensors = {name: value.astype(np.float32) for name, value in load_file(file).items()}
    for name in list(tensors):
        if found := re.fullmatch(r"(.*)\.(input_layernorm|post_attention_layernorm)\.weight", name):
            tensors[name][::EVERY] *= factor
            for reader in _READERS[found[2]]:
                tensors[f"{found[1]}.{reader}.weight"][:, ::EVERY] /= factor
    save_file(tensors, file, metadata={"format": "pt"})
    return output


if __name__ == "__main__":
    main()
