"""Every way an ONNX model can be wrong is a ModelError that names what is wrong and what was expected."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend import load_model
from tests.mllm_tvm.frontend.onnx.fused_graphs import Style, write_genai, write_opset23
from tests.mllm_tvm.frontend.tiny_models import change_config, save_llama

Edit = Callable[[onnx.GraphProto], None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories ``genai`` (with external data) and ``opset23``."""
    root = tmp_path_factory.mktemp("written")
    source = save_llama(root / "hf")
    write_genai(source, root / "genai", Style(packed=False, external=True))
    write_opset23(source, root / "opset23", flat=True)
    return root


@pytest.fixture
def genai(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "genai", tmp_path / "genai"))


@pytest.fixture
def opset23(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "opset23", tmp_path / "opset23"))


def _edit(directory: Path, edit: Edit) -> Path:
    file = directory / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    edit(model.graph)
    file.write_bytes(model.SerializeToString())
    return file


def _refuses(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    for word in words:
        assert word in str(caught.value)


def _node(graph: onnx.GraphProto, op: str, index: int = 0) -> Any:
    return [node for node in graph.node if node.op_type == op][index]


def _input(graph: onnx.GraphProto, name: str) -> Any:
    return next(value for value in graph.input if value.name == name)


def _set_extent(name: str, axis: int, extent: int | str) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        dim = _input(graph, name).type.tensor_type.shape.dim[axis]
        dim.Clear()
        if isinstance(extent, int):
            dim.dim_value = extent
        else:
            dim.dim_param = extent

    return edit


def _set_attribute(op: str, name: str, value: Any) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        node = _node(graph, op)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def _insert_before_logits(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = ()) -> Edit:
    """The first of ``nodes`` reads the logits ``x``, the last writes them as ``y``."""

    def edit(graph: onnx.GraphProto) -> None:
        last = graph.node[-1]
        assert list(last.output) == ["logits"]
        graph.initializer.extend(weights)
        added = [helper.make_node("Identity", last.input, ["x"]), *nodes]
        added.append(helper.make_node("Identity", ["y"], ["logits"]))
        graph.node.remove(last)
        graph.node.extend(added)

    return edit


def test_the_untouched_files_load(genai: Path, opset23: Path) -> None:
    assert load_model(genai).config.num_layers == 2
    assert load_model(opset23 / "model.onnx").config.num_layers == 2


def test_missing_file(tmp_path: Path) -> None:
    _refuses(tmp_path / "absent.onnx", "absent.onnx", "expected")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "weights.bin"])
def test_missing_companion(genai: Path, name: str) -> None:
    (genai / name).unlink()
    _refuses(genai / "model.onnx", name, "is missing")


def test_truncated_external_data_names_the_weight(genai: Path) -> None:
    file = genai / "weights.bin"
    file.write_bytes(file.read_bytes()[:-10])
    _refuses(genai, "weights.bin", "truncated", "lm_head")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", ""])
def test_external_data_outside_of_the_directory(genai: Path, location: str) -> None:
    shutil.copy(genai / "weights.bin", genai.parent)

    def edit(graph: onnx.GraphProto) -> None:
        for entry in graph.initializer[-1].external_data:
            entry.value = location if entry.key == "location" else entry.value

    _refuses(_edit(genai, edit), "model.onnx", repr(location), "expected a file in")


def test_external_data_of_another_length(genai: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        graph.initializer[-1].dims[0] += 1

    _refuses(_edit(genai, edit), "model.onnx", "lm_head", "bytes for shape")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"<html>"])
def test_not_an_onnx_file(genai: Path, content: bytes) -> None:
    (genai / "model.onnx").write_bytes(content)
    _refuses(genai, "model.onnx", "not an ONNX")


def test_a_name_that_is_no_text(opset23: Path) -> None:
    file = opset23 / "model.onnx"
    file.write_bytes(file.read_bytes().replace(b"past_key_values.0.key", b"past_key_values.0.\xffey"))
    _refuses(file, "model.onnx is damaged", "expected a name", "xffey")


def test_damaged_bytes_never_escape_as_another_error(opset23: Path) -> None:
    file = opset23 / "model.onnx"
    good = file.read_bytes()
    messages = []
    for seed in range(60):
        bad = bytearray(good)
        bad[random.Random(seed).randrange(3000)] = seed
        file.write_bytes(bad)
        try:
            load_model(file)
        except ModelError as error:
            messages.append(str(error))
    assert all(str(opset23) in message for message in messages)
    assert 20 < len(messages) < 60  # some bytes do not matter


def test_truncated_onnx_file(opset23: Path) -> None:
    file = opset23 / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1000])
    _refuses(opset23, "model.onnx", "not an ONNX")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 3}, ["num_hidden_layers", "expected 2", "found 3"]),
        ({"num_key_value_heads": 4}, ["num_key_value_heads", "expected 2", "found 4"]),
        ({"num_attention_heads": 8}, ["num_attention_heads", "expected 4", "found 8"]),
        ({"hidden_size": 128}, ["hidden_size", "expected 64", "found 128"]),
        ({"vocab_size": 321}, ["logits", "321"]),
        ({"max_position_embeddings": "long"}, ["max_position_embeddings", "positive integer"]),
        ({"is_encoder_decoder": True}, ["is_encoder_decoder", "decoder-only"]),
    ],
)
def test_settings_of_another_model(opset23: Path, changes: dict[str, Any], words: list[str]) -> None:
    _refuses(change_config(opset23, **changes), *words)


@pytest.mark.parametrize(
    ("name", "axis", "extent", "words"),
    [
        ("past_key_values.0.key", 1, "heads", ["past_key_values.0.key", "fixed number of key/value heads"]),
        ("past_key_values.1.value", 2, 16, ["past_key_values.1.value", "symbolic past length"]),
        ("tokens", 1, 8, ["tokens", "symbolic number of tokens"]),
        ("tokens", 0, 4, ["tokens", "symbolic number of tokens"]),
        ("past_key_values.0.key", 3, 8, ["Attention_", "joins"]),
    ],
    ids=["dynamic-heads", "static-cache", "static-sequence", "static-batch", "head-size"],
)
def test_unusable_extent(opset23: Path, name: str, axis: int, extent: Any, words: list[str]) -> None:
    _refuses(_edit(opset23, _set_extent(name, axis, extent)), "model.onnx", *words)


def test_missing_past_inputs_of_one_layer(opset23: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        node = _node(graph, "Attention", 1)
        del node.input[3:]
        for name in ("past_key_values.1.key", "past_key_values.1.value"):
            graph.input.remove(_input(graph, name))

    _refuses(_edit(opset23, edit), "model.onnx", "(Attention)", "a past input is missing")


def test_window_that_a_graph_without_past_does_not_show(opset23: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        for i in (0, 1):
            del _node(graph, "Attention", i).input[3:]
            for kind in ("key", "value"):
                graph.input.remove(_input(graph, f"past_key_values.{i}.{kind}"))

    file = _edit(opset23, edit)
    assert load_model(file).config.num_layers == 2
    change_config(opset23, sliding_window=4096, max_position_embeddings=8192)
    _refuses(file, "sliding window of 4096", "without past")


def test_one_cache_for_two_layers(opset23: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        node = _node(graph, "Attention", 1)
        node.input[4:] = ["past_key_values.0.key", "past_key_values.0.value"]

    _refuses(_edit(opset23, edit), "past_key_values.0.key", "found 2")


def test_encoder(opset23: Path) -> None:
    file = _edit(opset23, _set_attribute("Attention", "is_causal", 0))
    _refuses(file, "(Attention)", "attend to later", "encoders are not supported")


def test_encoder_decoder(opset23: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        shape = ["batch", "encoder_sequence", 64]
        graph.input.append(helper.make_tensor_value_info("encoder_hidden_states", TensorProto.FLOAT, shape))
        _node(graph, "Add").input[0] = "encoder_hidden_states"

    _refuses(_edit(opset23, edit), "encoder_hidden_states", "decoder-only")


def test_attention_bias_is_no_mask(opset23: Path) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        bias = numpy_helper.from_array(np.full((1, 4, 1, 1), 0.5, np.float32), "bias")
        graph.initializer.append(bias)
        _node(graph, "Attention").input[3] = "bias"

    _refuses(_edit(opset23, edit), "(Attention)", "adds a bias")


@pytest.mark.parametrize(
    ("op", "name", "value"),
    [
        ("SimplifiedLayerNormalization", "epsilon", "small"),
        ("GroupQueryAttention", "softcap", 30.0),
        ("GroupQueryAttention", "smooth_softmax", 1),
    ],
)
def test_unsupported_attribute(genai: Path, op: str, name: str, value: Any) -> None:
    _refuses(_edit(genai, _set_attribute(op, name, value)), op, name)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("HardSwish", ["x"], ["y"], "extra"), ["'extra' (HardSwish)", "has no rule"]),
        (helper.make_node("Run", ["x"], ["y"], "extra", domain="evil"), ["evil.Run", "has no rule"]),
        (helper.make_node("ReduceMean", ["x"], ["y"], "extra", axes=[1]), ["averages over the tokens"]),
        (helper.make_node("Transpose", ["x"], ["y"], "extra", perm=[2, 0, 1]), ["outputs", "logits"]),
        (helper.make_node("Softmax", ["x"], ["y"], "extra"), ["softmax", "outside of attention"]),
        (helper.make_node("Mul", ["x", "nowhere"], ["y"], "extra"), ["nowhere", "before any node"]),
        (helper.make_node("Concat", ["x", "x"], ["y"], "extra"), ["'extra' (Concat)", "missing"]),
    ],
    ids=["no-rule", "domain", "mixes-tokens", "layout", "softmax", "undefined", "malformed"],
)
def test_node_that_cannot_be_imported(opset23: Path, node: onnx.NodeProto, words: list[str]) -> None:
    _refuses(_edit(opset23, _insert_before_logits(node)), "model.onnx", *words)


def test_control_flow(opset23: Path) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "body", [], [])
    branches = {"then_branch": body, "else_branch": body}
    node = helper.make_node("If", ["x"], ["y"], "extra", **branches)
    _refuses(_edit(opset23, _insert_before_logits(node)), "'extra' (If)", "control flow")


def test_logits_of_the_last_token_only(opset23: Path) -> None:
    last = numpy_helper.from_array(np.array(-1, np.int64), "last")
    node = helper.make_node("Gather", ["x", "last"], ["y"], "extra", axis=1)
    _refuses(_edit(opset23, _insert_before_logits(node, weights=(last,))), "'extra' (Gather)", "each")


def test_value_that_depends_on_the_number_of_tokens(opset23: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["sizes"], ["size"], keepdims=0),
        helper.make_node("Slice", ["sizes", "one", "two"], ["length"]),
        helper.make_node("Mul", ["x", "length"], ["y"], "extra"),
    ]
    weights = tuple(numpy_helper.from_array(np.array([n], np.int64), s) for n, s in ((1, "one"), (2, "two")))
    file = _edit(opset23, _insert_before_logits(*nodes, weights=weights))
    _refuses(file, "'extra' (Mul)", "depends on how many tokens")
