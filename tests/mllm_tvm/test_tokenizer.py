"""Round trips, BOS, and streaming for both families of tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, processors

from mllm_tvm.tokenizer import Tokenizer
from tests.mllm_tvm.frontend.tiny_models import byte_level_tokenizer

TEXTS = [
    "the cat sat",
    "two  spaces, a tab\t and\n\nlines \n",
    "é 日本語 🙂🙃 naïve",
    " leading and trailing ",
    "👩‍👩‍👧 family",
    "",
]


def _sentencepiece() -> tokenizers.Tokenizer:
    """Like Llama 2's: "▁" for spaces, one put in front, bytes for what the vocabulary lacks."""
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>"])}
    for token in [f"<0x{byte:02X}>" for byte in range(256)] + list("▁abcdefghijklmnopqrstuvwxyz,"):
        vocab[token] = len(vocab)
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "c"), ("a", "t"), ("▁c", "at")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


BACKENDS = {"byte-level": byte_level_tokenizer, "sentencepiece": _sentencepiece}


@pytest.fixture(scope="module", params=BACKENDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(BACKENDS[request.param](), 1, (2,))


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_pieces_make_the_whole_text(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_streaming_goes_on_where_any_prompt_ends(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    for cut in range(1, len(ids)):
        head = tokenizer.decode(ids[:cut])
        if head.endswith("\ufffd"):
            continue
        stream = tokenizer.stream(ids[:cut])
        assert head + "".join(map(stream.push, ids[cut:])) + stream.flush() == text


def test_an_incomplete_character_is_held_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    stream = tokenizer.stream()
    assert [stream.push(token) for token in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.push(ids[-1]) == "🙂"


def test_bytes_that_never_become_a_character_come_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids[:-1])) == ""
    assert set(stream.flush()) == {"\ufffd"}
    assert stream.flush() == ""


def test_special_tokens_give_no_text(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream(tokenizer.encode("the cat"))
    assert stream.push(2) == ""


@pytest.mark.parametrize("adds_bos", [False, True])
def test_exactly_one_bos_whatever_the_post_processor_does(adds_bos: bool) -> None:
    backend = byte_level_tokenizer()
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    ids = Tokenizer(backend, 1, (2,)).encode("the cat")
    assert ids.count(1) == 1
    assert ids[0] == 1
    assert ids.count(2) == 0


def test_bos_written_in_the_text_is_not_doubled() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer(), 1, (2,))
    assert tokenizer.encode("<s>the cat") == tokenizer.encode("the cat")


def test_model_without_bos_gets_none() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer(), None, (2,))
    assert 1 not in tokenizer.encode("the cat")


def test_truncation_and_padding_saved_with_the_tokenizer_are_ignored(tmp_path: Path) -> None:
    backend = byte_level_tokenizer()
    backend.enable_truncation(2)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_directory(tmp_path, 1, (2,), 320)
    assert loaded.decode(loaded.encode("the cat sat on the mat")) == "the cat sat on the mat"


def test_stories_tokenizer_equals_transformers(shared_data: Path) -> None:
    from transformers import AutoTokenizer

    path = shared_data / "hf/stories3M"
    reference = AutoTokenizer.from_pretrained(path)
    tokenizer = Tokenizer.from_directory(path, 1, (2,), 4096)
    lines = (shared_data / "text/calibration.txt").read_text().splitlines()[:40]
    for line in filter(None, lines):
        ids = tokenizer.encode(line)
        assert ids == reference(line)["input_ids"]
        assert tokenizer.decode(ids) == line
