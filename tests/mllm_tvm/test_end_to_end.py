"""The whole road with the demo model: compile, load, run on both devices; text and integers are identical."""

import json

import numpy as np
import pytest

from mllm_tvm.artifact import DEVICE_SERVER, HOST_SERVER, load_artifact
from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.demo.stories import stories
from mllm_tvm.evaluate import float_forward, perplexity
from mllm_tvm.frontend import load_model
from mllm_tvm.runtime.engine import Engine
from mllm_tvm.sampling import SamplingConfig
from targets.glu import GluFormat, glu_reference
from targets.hexagon.session import open_session
from targets.outliers import split_bytes
from targets.packing import linear_w8a8_reference

# Longer than 64 tokens, so two of the three chunk lengths need several chunks.
PROMPT = next(stories(seed=3, count=1))[:400]
SERVERS = {"host": HOST_SERVER, "qemu": DEVICE_SERVER}


def _text(artifact, device="host", policy="paper", chunk_lengths=None, sampling=None, tokens=24):
    with Engine(artifact, device, policy, chunk_lengths) as engine:
        return "".join(engine.generate(PROMPT, tokens, sampling or SamplingConfig())), engine.stats


@pytest.fixture(scope="module")
def host_text(demo_artifact):
    return _text(demo_artifact)[0]


@pytest.mark.parametrize("device", ["host", "qemu"])
@pytest.mark.parametrize("policy", ["in-order", "paper", "sequential"])
def test_text_does_not_depend_on_device_or_policy(demo_artifact, host_text, device, policy, require_device):
    require_device(device)
    text, stats = _text(demo_artifact, device, policy)
    assert text == host_text
    assert (stats.device, stats.policy) == (device, policy)
    assert stats.npu_calls > 0
    assert (stats.npu_packets > 0) == (device == "qemu")


@pytest.mark.parametrize("length", [16, 64, 256])
def test_text_does_not_depend_on_chunk_length(demo_artifact, host_text, length):
    text, stats = _text(demo_artifact, chunk_lengths=(length,))
    assert text == host_text
    assert set(stats.chunk_lengths) == {length}


def test_logits_are_bit_identical_across_chunk_lengths(demo_artifact):
    ids = load_model(MODEL_DIR).tokenizer.encode(" ".join(stories(seed=5, count=3)))[:200]
    found = []
    for lengths in [(16,), (64,), (16, 64, 256)]:
        with Engine(demo_artifact, "host", chunk_lengths=lengths) as engine:
            found.append(engine.forward(ids))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_decode_continues_prefill(demo_artifact):
    """A token's logits are the same whether it was prefilled on the NPU or decoded on the CPU."""
    ids = load_model(MODEL_DIR).tokenizer.encode(PROMPT)
    with Engine(demo_artifact, "host") as engine:
        whole = engine.forward(ids)
        last = engine.prefill(ids[:-3])
        np.testing.assert_array_equal(last, whole[-4])
        for i in (-3, -2, -1):
            np.testing.assert_array_equal(engine.decode(ids[i]), whole[i])


def test_sampling_is_reproducible(demo_artifact, host_text):
    sampling = SamplingConfig(temperature=0.9, top_k=40, top_p=0.95, seed=11)
    first, second = (_text(demo_artifact, sampling=sampling)[0] for _ in range(2))
    assert first == second
    assert first != host_text


@pytest.mark.parametrize("device", ["host", "qemu"])
def test_every_npu_function_is_bit_exact(demo_artifact, device, require_device):
    """Each kernel of the artifact against NumPy, on random and extreme inputs and the model's own weights."""
    require_device(device)
    graph = demo_artifact.manifest.graph
    assert {function.kind for function in graph.functions if function.processor == "npu"} == {"linear", "mlp"}
    weights = {call.function: _weights(demo_artifact, call) for call in graph.calls}
    rng = np.random.default_rng(1)
    with open_session(device, demo_artifact.file(SERVERS[device])) as session:
        for function in graph.functions:
            if function.processor != "npu":
                continue
            on_device = [session.upload(weight) for weight in weights[function.name]]
            check = _check_mlp if function.kind == "mlp" else _check_linear
            for m in demo_artifact.manifest.chunk_lengths:
                check(session, function, m, _inputs(rng, m, function.k), weights[function.name], on_device)


def _weights(artifact, call):
    names = (arg.removeprefix("param:") for arg in call.args if arg.startswith("param:"))
    return [artifact.parameters[name] for name in names]


def _inputs(rng, m, k):
    yield rng.integers(-127, 128, (m, k), dtype=np.int8)
    for value in (-127, 0, 127):
        yield np.full((m, k), value, np.int8)


def _check_linear(session, function, m, inputs, weights, on_device):
    for x in inputs:
        expected = linear_w8a8_reference(x, *weights)
        out = session.empty(expected.shape, "int32")
        session.call(f"{function.name}_m{m}", session.upload(x), *on_device, out)
        np.testing.assert_array_equal(session.download(out), expected)


def _check_mlp(session, function, m, inputs, weights, on_device):
    gate_up, multipliers, shifts, table, down = weights
    channels, columns = function.channels, 2 * function.padded_channels
    for low in inputs:
        high = np.where(np.arange(low.shape[1]) % 50 == 7, low // 8, 0).astype(np.int8)
        sums = _two_bytes(low, high, gate_up)
        h = glu_reference(sums, function.k, GluFormat(multipliers, shifts), table)
        expected = _two_bytes(*split_bytes(h), down)
        out = session.empty(expected.shape, "int32")
        scratch = [
            session.empty((m, columns), "int32"),
            *(session.empty((m, channels), "int8") for _ in "lh"),
        ]
        arguments = [session.upload(low), session.upload(high), *on_device, *scratch, out]
        session.call(f"{function.name}_m{m}", *arguments)
        np.testing.assert_array_equal(session.download(out), expected)


def _two_bytes(low, high, packed):
    return linear_w8a8_reference(low, packed) + 256 * linear_w8a8_reference(high, packed)


def test_perplexity_is_close_to_float(demo_artifact):
    model = load_model(MODEL_DIR)
    segments = [model.tokenizer.encode(text)[:256] for text in stories(seed=77, count=12)]
    exact = perplexity(float_forward(model), model.tokenizer, segments)["perplexity"]
    with Engine(demo_artifact, "host") as engine:
        ours = perplexity(engine.forward, model.tokenizer, segments)["perplexity"]
    assert ours < 1.02 * exact


def test_functions_are_shared_by_layers(demo_artifact):
    graph = demo_artifact.manifest.graph
    npu = [function for function in graph.functions if function.processor == "npu"]
    assert len(npu) <= 5
    assert len(graph.functions) < len(graph.calls) / 3


def test_artifact_is_plain_files(demo_artifact):
    loaded = load_artifact(demo_artifact.path)
    assert loaded.manifest == demo_artifact.manifest
    names = {path.relative_to(loaded.path).as_posix() for path in loaded.path.rglob("*") if path.is_file()}
    assert names == {*loaded.manifest.files, "manifest.json"}
    json.loads((loaded.path / "recipe.json").read_text())
