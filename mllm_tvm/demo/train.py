"""Trains the embedded model from nothing: stories, tokenizer, weights, and a record of how it went.

Run as ``python -m mllm_tvm.demo.train --out DIR``. Everything is seeded; `training.json` in the result holds
the seeds and what was measured. ``--evaluate DIR`` measures the validation perplexity of a directory again.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from mllm_tvm.demo.stories import stories

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
UNKNOWN_ID, BEGIN_ID, END_ID = range(3)


@dataclass(frozen=True)
class Settings:
    """What a run is determined by."""

    vocabulary: int = 2048
    positions: int = 512
    hidden: int = 128
    intermediate: int = 384
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    training_seed: int = 20240601
    validation_seed: int = 7
    torch_seed: int = 1234
    training_stories: int = 46_000
    validation_stories: int = 400
    # The tokenizer needs fewer stories than the model: its pieces are frequent ones.
    tokenizer_stories: int = 10_000
    batch: int = 8
    # Attention over short windows is cheaper, and most of what is to be learned is near.
    short_window: int = 256
    short_share: float = 0.7
    steps: int = 3000
    warmup: int = 100
    learning_rate: float = 3e-3
    final_rate: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0


def train_tokenizer(texts: Sequence[str], settings: Settings) -> Tokenizer:
    """A byte-level BPE tokenizer, which prepends <s> and decodes to exactly what was encoded."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[UNKNOWN, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, BEGIN_ID)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Every text as <s> text </s>."""
    return [[*encoding.ids, END_ID] for encoding in tokenizer.encode_batch(list(texts))]


def new_model(settings: Settings) -> LlamaForCausalLM:
    """The untrained model."""
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.positions,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
    )
    return LlamaForCausalLM(config).to(torch.float32)


def optimizer_of(model: torch.nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW, which does not decay norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [value for value in parameters if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in parameters if value.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def rate(progress: float, settings: Settings) -> float:
    """The share of the learning rate at a progress of 0 to 1: linear warmup, then a cosine."""
    warmup = settings.warmup / settings.steps
    if progress < warmup:
        return progress / warmup
    progress = (progress - warmup) / (1 - warmup)
    return settings.final_rate + (1 - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    model: LlamaForCausalLM, rows: torch.Tensor, settings: Settings, minutes: float, compiled: bool
) -> tuple[int, float]:
    """Trains on packed rows; returns the number of steps and the mean loss of the last fifty of them.

    A machine that would need more than `minutes` takes fewer steps, and still ends at the final rate.
    """
    optimizer = optimizer_of(model, settings)
    forward = torch.compile(model, dynamic=False) if compiled else model
    generator = torch.Generator().manual_seed(settings.torch_seed)
    order = torch.randperm(len(rows), generator=generator)
    recent: list[float] = []
    start = time.monotonic()
    model.train()
    step, progress = 0, 0.0
    while progress < 1:
        picked = [order[(step * settings.batch + offset) % len(order)] for offset in range(settings.batch)]
        batch = rows[torch.stack(picked)]
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(progress, settings)
        window = settings.short_window if progress < settings.short_share else settings.positions
        logits = forward(batch[:, :-1].reshape(-1, window), use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        recent = [*recent[-49:], loss.item()]
        step += 1
        elapsed = time.monotonic() - start
        progress = max(step / settings.steps, elapsed / 60 / minutes)
        if step % 20 == 0:
            mean = sum(recent) / len(recent)
            print(f"step {step}/{settings.steps} loss {mean:.4f} {elapsed:.0f} s", flush=True)
    return step, sum(recent) / len(recent)


@torch.no_grad()
def evaluate(model: torch.nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Perplexity per token and bits per byte over whole stories, each read alone from its <s> to its </s>."""
    model.eval()
    total, tokens = 0.0, 0
    for row in encode(tokenizer, texts):
        ids = torch.tensor([row])
        logits = model(ids[:, :-1], use_cache=False).logits[0].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    size = sum(len(text.encode()) for text in texts)
    return {
        "validation_loss": total / tokens,
        "validation_perplexity": math.exp(total / tokens),
        "validation_bits_per_byte": total / math.log(2) / size,
        "validation_tokens": tokens,
    }


def complete_config(path: Path) -> None:
    """Adds `rope_theta` where readers older than transformers 5 look for it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("rope_theta", config["rope_parameters"]["rope_theta"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, record: dict[str, Any], out: Path) -> None:
    """Writes the Hugging Face directory; it appears complete or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=out.name + ".", dir=out.parent))
    try:
        model.generation_config = transformers.GenerationConfig(
            bos_token_id=BEGIN_ID,
            eos_token_id=END_ID,
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            max_length=model.config.max_position_embeddings,
        )
        model.to(torch.float16).save_pretrained(partial)
        complete_config(partial / "config.json")
        tokenizer.save(str(partial / "tokenizer.json"))
        special = {"unk_token": UNKNOWN, "bos_token": BEGIN, "eos_token": END}
        tokenizer_config = {
            **special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.config.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
        }
        for name, value in (
            ("tokenizer_config.json", tokenizer_config),
            ("special_tokens_map.json", special),
            ("training.json", record),
        ):
            (partial / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        for path in partial.iterdir():
            path.chmod(0o644)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def validation_stories(settings: Settings) -> list[str]:
    """The held-out stories: those of another seed."""
    return list(stories(settings.validation_seed, settings.validation_stories))


def train(
    settings: Settings, out: Path, minutes: float, compiled: bool, start_from: Path | None = None
) -> dict[str, Any]:
    """Trains, measures, saves; returns the record. `start_from` is a trained directory to go on from."""
    start = time.monotonic()
    torch.manual_seed(settings.torch_seed)
    texts = list(stories(settings.training_seed, settings.training_stories))
    previous: dict[str, Any] | None = None
    if start_from:
        tokenizer = Tokenizer.from_file(str(start_from / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(start_from, dtype=torch.float32)
        previous = json.loads((start_from / "training.json").read_text(encoding="utf-8"))
    else:
        tokenizer = train_tokenizer(texts[: settings.tokenizer_stories], settings)
        model = new_model(settings)
    stream = torch.tensor([token for row in encode(tokenizer, texts) for token in row])
    length = settings.positions + 1
    rows = stream[: len(stream) // length * length].view(-1, length)
    parameters = sum(value.numel() for value in model.parameters())
    print(f"{len(texts)} stories, {len(stream)} tokens, {parameters} parameters", flush=True)
    steps, loss = fit(model, rows, settings, minutes, compiled)
    wall_time = time.monotonic() - start
    # What is measured is what is stored: weights rounded to fp16.
    rounded = model.to(torch.float16).to(torch.float32)
    record = {
        **asdict(settings),
        "parameters": parameters,
        "distinct_tokens": len(stream),
        "steps_taken": steps,
        "trained_tokens": steps * settings.batch * settings.positions,
        "training_loss": loss,
        **evaluate(rounded, tokenizer, validation_stories(settings)),
        "compiled": compiled,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "wall_time_seconds": round(wall_time),
        "continued_from": previous,
    }
    save(model, tokenizer, record, out)
    return record


def evaluate_directory(directory: Path, count: int) -> dict[str, float]:
    """The validation measures of a saved model, in fp32 arithmetic."""
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    seed = json.loads((directory / "training.json").read_text(encoding="utf-8"))["validation_seed"]
    return evaluate(model, tokenizer, list(stories(seed, count)))


def main() -> None:
    """Command line."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="directory to write the trained model to")
    action.add_argument("--evaluate", type=Path, metavar="DIR", help="measure a trained model instead")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--stories", type=int, default=defaults.training_stories, help="stories to train on")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="rows of 512 tokens in a step")
    parser.add_argument("--rate", type=float, default=defaults.learning_rate, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=defaults.training_seed, help="of the training stories")
    parser.add_argument("--start", type=Path, metavar="DIR", help="trained model to go on from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="anneal early to end in time")
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    if arguments.evaluate:
        result: dict[str, Any] = evaluate_directory(arguments.evaluate, defaults.validation_stories)
    else:
        settings = Settings(
            steps=arguments.steps,
            batch=arguments.batch,
            learning_rate=arguments.rate,
            training_stories=arguments.stories,
            training_seed=arguments.seed,
        )
        result = train(settings, arguments.out, arguments.minutes, arguments.compile, arguments.start)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
