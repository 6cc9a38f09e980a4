"""Text to token ids and back, also token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from mllm_tvm.errors import ModelError

TOKENIZER_NAME = "tokenizer.json"

_REPLACEMENT = "\ufffd"


class Tokenizer:
    """A Hugging Face ``tokenizer.json``; use :meth:`from_directory`.

    Args:
        backend: the tokenizer of the ``tokenizers`` library.
        bos_id: put before every text, exactly once; None for a model without one.
        eos_ids: tokens that end a generation.
    """

    def __init__(self, backend: tokenizers.Tokenizer, bos_id: int | None, eos_ids: tuple[int, ...]):
        self.backend = backend
        self.bos_id = bos_id
        self.eos_ids = eos_ids

    @classmethod
    def from_directory(
        cls, path: Path, bos_id: int | None, eos_ids: tuple[int, ...], vocab_size: int
    ) -> Tokenizer:
        """The tokenizer of a model directory.

        Raises:
            ModelError: ``tokenizer.json`` is missing or damaged, or has ids that the model does not.
        """
        file = path / TOKENIZER_NAME
        if not file.is_file():
            raise ModelError(f"{file} is missing: save the model's fast tokenizer beside its weights")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more specific
            raise ModelError(f"{file} cannot be read ({error}): save the tokenizer again") from None
        largest = max(backend.get_vocab().values(), default=0)
        if largest >= vocab_size:
            raise ModelError(f"{file}: token id {largest} is not below the model's vocab_size {vocab_size}")
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, bos_id, eos_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, with exactly one BOS in front if the model has one."""
        # The post-processor is left out: whether it adds BOS (or EOS) differs from model to model.
        ids = list(self.backend.encode(text, add_special_tokens=False).ids)
        if self.bos_id is None or ids[:1] == [self.bos_id]:  # the text itself may begin with it
            return ids
        return [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def stream(self, prompt: Sequence[int] = ()) -> StreamingDecoder:
        """A decoder for tokens that follow ``prompt``."""
        return StreamingDecoder(self, prompt)


class StreamingDecoder:
    """Turns tokens into text as they come: only complete characters, spaces as in the whole text.

    A token's text depends on its neighbours (a leading space, bytes of one character), so each step decodes
    from a little before the last emitted piece and emits what is new.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()):
        self.tokenizer = tokenizer
        self.ids = list(prompt)
        # ids[start:emitted] is context whose text is already out; ids[emitted:] is pending.
        # The whole prompt is the first context: a shorter one could begin within a character.
        self.start = 0
        self.emitted = len(self.ids)

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is incomplete."""
        self.ids.append(token)
        text = self._pending()
        if text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """What is left at the end: replacement characters for bytes that never became one."""
        return self._emit(self._pending())

    def _pending(self) -> str:
        context = self.tokenizer.decode(self.ids[self.start : self.emitted])
        return self.tokenizer.decode(self.ids[self.start :])[len(context) :]

    def _emit(self, text: str) -> str:
        if text:
            self.start, self.emitted = self.emitted, len(self.ids)
        return text
