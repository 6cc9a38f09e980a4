"""stories3M end to end: a real model with massive activations, on which naive W8A8 loses 41 % perplexity."""

import pytest

from mllm_tvm.evaluate import float_forward, perplexity, read_segments
from mllm_tvm.frontend import load_model
from mllm_tvm.runtime.engine import Engine

# Longer than 64 tokens, so two of the three chunk lengths need several chunks.
PROMPT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her "
    "dog, Max. One day, they found a big red ball under a tree. The ball was wet and dirty, but Lily did not "
    'mind. She said, "Look, Max! We can play with this ball." Max barked and ran in circles. Then a boy came '
    "to them. He was sad because he had lost his ball. Lily"
)


def _text(artifact, device, policy="paper", chunk_lengths=None, tokens=40):
    with Engine(artifact, device, policy, chunk_lengths) as engine:
        return "".join(engine.generate(PROMPT, tokens))


@pytest.fixture(scope="module")
def host_text(stories3m_artifact):
    return _text(stories3m_artifact, "host")


def test_story_is_coherent(stories3m_artifact, host_text):
    words = [word.strip(".,!?\"'").lower() for word in host_text.split()]
    assert len(words) > 20
    assert len(set(words)) > len(words) / 3
    assert "she" in words or "lily" in words


@pytest.mark.parametrize("policy", ["in-order", "paper"])
def test_qemu_writes_what_host_writes(stories3m_artifact, host_text, policy, require_device):
    require_device("qemu")
    assert _text(stories3m_artifact, "qemu", policy) == host_text


@pytest.mark.parametrize("length", [16, 64, 256])
def test_text_does_not_depend_on_chunk_length(stories3m_artifact, host_text, length):
    assert _text(stories3m_artifact, "host", chunk_lengths=(length,)) == host_text


def test_perplexity_within_two_percent_of_float(stories3m_artifact, shared_data):
    """A part of the validation text; `mllm-tvm eval` measures all of it."""
    model = load_model(shared_data / "hf/stories3M")
    segments = read_segments(model.tokenizer, shared_data / "text/tinystories_val_a.txt")[:20]
    exact = perplexity(float_forward(model), model.tokenizer, segments)["perplexity"]
    with Engine(stories3m_artifact, "host") as engine:
        ours = perplexity(engine.forward, model.tokenizer, segments)["perplexity"]
    assert 5.0 < exact < 6.5
    assert ours <= 1.02 * exact
