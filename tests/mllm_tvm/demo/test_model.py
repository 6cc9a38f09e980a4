"""The committed model: what its record says is what its files hold."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.demo.stories import stories
from mllm_tvm.demo.train import Settings, evaluate, new_model, save, train, train_tokenizer

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
)
PROMPTS = ("Once upon a time", "One day", "There was once a little fox", "In the village")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def record() -> dict[str, float]:
    return json.loads((MODEL_DIR / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def written_words() -> set[str]:
    return {word for story in stories(1, 4000) for word in re.findall(r"[A-Za-z']+", story)}


def continuations(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str, **how: object) -> list[str]:
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    greedy = {"do_sample": False, "temperature": None, "top_p": None}
    options = {"max_new_tokens": 80, "max_length": None, "pad_token_id": 2, **greedy, **how}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return tokenizer.decode_batch(output[:, ids.shape[1] :].tolist())


def test_files_and_size() -> None:
    assert sorted(path.name for path in MODEL_DIR.iterdir()) == sorted(FILES)
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 8_000_000


def test_import_is_light() -> None:
    program = "import sys, mllm_tvm.demo; print({'torch', 'tvm', 'transformers'} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_config(record: dict[str, float]) -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": record["layers"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 2048,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected
    assert config["rope_theta"] == 10000.0


def test_tensors_are_fp16_and_counted(record: dict[str, float]) -> None:
    with safe_open(MODEL_DIR / "model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in tensors)
    count = sum(tensor.numel() for tensor in tensors)
    assert count == record["parameters"]
    assert 1_000_000 <= count <= 4_000_000


def test_tokenizer_round_trips(tokenizer: Tokenizer) -> None:
    texts = [*stories(11, 20), "  two  spaces\n\nand a line", "naïve café, 東京 and 🦊", ""]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids[0] == 1
        assert tokenizer.decode(ids) == text
    assert tokenizer.get_vocab_size() == 2048
    assert [tokenizer.id_to_token(index) for index in range(3)] == ["<unk>", "<s>", "</s>"]


def test_transformers_reads_the_tokenizer(tokenizer: Tokenizer) -> None:
    loaded = AutoTokenizer.from_pretrained(MODEL_DIR)
    text = next(stories(12, 1))
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (1, 2, 0)


def test_perplexity_is_what_is_recorded(
    model: LlamaForCausalLM, tokenizer: Tokenizer, record: dict[str, float]
) -> None:
    measured = evaluate(model, tokenizer, list(stories(int(record["validation_seed"]), 48)))
    # 48 of the recorded 400 stories: the difference is that of the sample.
    assert measured["validation_perplexity"] == pytest.approx(record["validation_perplexity"], rel=0.05)
    assert record["validation_seed"] != record["training_seed"]


def test_validation_stories_were_not_trained_on(record: dict[str, float]) -> None:
    held_out = set(stories(int(record["validation_seed"]), int(record["validation_stories"])))
    # The rest of the training stories would take too long here.
    assert held_out.isdisjoint(stories(int(record["training_seed"]), 5000))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_continuation_is_made_of_words(
    model: LlamaForCausalLM, tokenizer: Tokenizer, written_words: set[str], prompt: str
) -> None:
    words = re.findall(r"[A-Za-z']+", continuations(model, tokenizer, prompt)[0])
    # The last word may be cut off.
    known = [word in written_words for word in words[:-1]]
    assert len(known) >= 40
    assert sum(known) >= 0.95 * len(known)


def test_sampled_continuations_vary(
    model: LlamaForCausalLM, tokenizer: Tokenizer, written_words: set[str]
) -> None:
    torch.manual_seed(0)
    how = {"do_sample": True, "temperature": 0.8, "num_return_sequences": 6}
    texts = continuations(model, tokenizer, "Once upon a time", **how)
    assert len(set(texts)) == len(texts)
    words = [word for text in texts for word in re.findall(r"[A-Za-z']+", text)[:-1]]
    assert len(set(words)) >= 120
    assert sum(word in written_words for word in words) >= 0.95 * len(words)


def test_a_tiny_training_run_is_repeatable_and_complete(tmp_path: Path) -> None:
    settings = Settings(
        steps=2,
        warmup=1,
        batch=2,
        positions=64,
        short_window=32,
        layers=1,
        training_stories=60,
        validation_stories=2,
    )
    first = train(settings, tmp_path / "first", minutes=10, compiled=False)
    second = train(settings, tmp_path / "second", minutes=10, compiled=False)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(FILES)
    assert first["steps_taken"] == 2
    assert first["validation_loss"] == pytest.approx(second["validation_loss"], rel=1e-6)
    third = train(settings, tmp_path / "third", 10, compiled=False, start_from=tmp_path / "first")
    assert third["continued_from"] == first
    assert third["validation_loss"] < first["validation_loss"]


def test_saving_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = Settings(layers=1)
    tokenizer = train_tokenizer(list(stories(1, 20)), settings)
    out = tmp_path / "model"
    for number in (1, 2):
        save(new_model(settings), tokenizer, {"number": number}, out)
    assert json.loads((out / "training.json").read_text(encoding="utf-8")) == {"number": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
