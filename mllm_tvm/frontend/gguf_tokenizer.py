"""The tokenizer in a GGUF file's metadata, as one of the ``tokenizers`` library.

Two kinds (``tokenizer.ggml.model``): ``llama``, SentencePiece's pieces with scores and bytes as a fallback,
and ``gpt2``, byte-level BPE with merges, where ``tokenizer.ggml.pre`` says how text is cut into words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.gguf_file import GgufFile
from mllm_tvm.tokenizer import Tokenizer

_KEY = "tokenizer.ggml."
_SPACE = "▁"
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

_DIGITS_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS: dict[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "phi-2": None,
    "llama-bpe": _DIGITS_3,
    "qwen2": _DIGITS_3.replace(r"\p{N}{1,3}", r"\p{N}"),
}
"""``tokenizer.ggml.pre`` -> the regular expression that finds words; None for GPT-2's."""


def read_tokenizer(
    file: GgufFile, bos_id: int | None, eos_ids: tuple[int, ...], vocab_size: int
) -> Tokenizer:
    """The tokenizer of a GGUF file; raises ModelError when it has none, or one of another kind."""
    kind = file.value(f"{_KEY}model", str)
    makers = {"llama": _sentencepiece, "gpt2": _byte_level}
    if kind not in makers:
        raise ModelError(f"{file.path}: {_KEY}model {kind!r} is not supported: expected llama or gpt2")
    tokens = file.value(f"{_KEY}tokens", list)
    if len(tokens) > vocab_size:
        raise ModelError(f"{file.path}: {len(tokens)} tokens, but the model has vocab_size {vocab_size}")
    types = file.value(f"{_KEY}token_type", list, [1] * len(tokens))
    try:
        backend = makers[kind](file, tokens)
        backend.add_special_tokens(_added(tokens, types, _CONTROL))
        backend.add_tokens(_added(tokens, types, _USER_DEFINED))
    except ModelError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(f"{file.path}: the tokenizer cannot be made ({error}): download it again") from None
    return Tokenizer(backend, bos_id, eos_ids)


def _added(tokens: Sequence[str], types: Sequence[int], kind: int) -> list[AddedToken]:
    return [
        AddedToken(token, normalized=False)
        for token, found in zip(tokens, types, strict=True)
        if found == kind
    ]


def _sentencepiece(file: GgufFile, tokens: list[str]) -> tokenizers.Tokenizer:
    scores = file.value(f"{_KEY}scores", list)
    types = file.value(f"{_KEY}token_type", list, [1] * len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    unknown = next((tokens[i] for i, kind in enumerate(types) if kind == _UNKNOWN), None)
    merges = [pair for _, pair in sorted(_merges(vocab, scores), key=lambda found: -found[0])]
    model = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    prefix = file.value(f"{_KEY}add_space_prefix", bool, True)
    before = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", _SPACE)])
    after = [decoders.Strip(" ", 1, 0)] if prefix else []
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges(vocab: dict[str, int], scores: Sequence[float]) -> Iterator[tuple[float, tuple[str, str]]]:
    """Every pair of pieces that makes a piece, with that piece's score: the best is merged first."""
    for token, i in vocab.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                yield scores[i], (left, right)


def _byte_level(file: GgufFile, tokens: list[str]) -> tokenizers.Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in file.value(f"{_KEY}merges", list)]
    words = file.value(f"{_KEY}pre", str, "default")
    if words not in _WORDS:
        raise ModelError(f"{file.path}: {_KEY}pre {words!r} is not supported: expected {', '.join(_WORDS)}")
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=words == "llama-bpe"))
    expression = _WORDS[words]
    if expression is None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    backend.decoder = decoders.ByteLevel()
    return backend
