"""Loads a decoder from an ONNX file and the JSON files beside it."""

from __future__ import annotations

from pathlib import Path

from mllm_tvm.errors import ModelError
from mllm_tvm.frontend.model import Model
from mllm_tvm.frontend.onnx.dims import ONE, SEQ, Dim
from mllm_tvm.frontend.onnx.emit import Emitter
from mllm_tvm.frontend.onnx.file import OnnxFile
from mllm_tvm.frontend.onnx.fused import FUSED_RULES
from mllm_tvm.frontend.onnx.importer import LONGEST_SQUARE_MASK, Importer
from mllm_tvm.frontend.onnx.parameters import OnnxParameters
from mllm_tvm.frontend.onnx.roles import caches, find_inputs
from mllm_tvm.frontend.onnx.rules import RULES
from mllm_tvm.frontend.onnx.settings import Settings, model_config, read_settings
from mllm_tvm.frontend.onnx.tables import exact_tables
from mllm_tvm.frontend.onnx.tensor import Tensor
from mllm_tvm.tokenizer import TOKENIZER_NAME, Tokenizer

SUFFIX = ".onnx"
_DECODER_NAMES = ("model.onnx", "decoder_with_past_model.onnx", "decoder_model.onnx")


def find_onnx(path: Path) -> Path | None:
    """The ONNX file that ``path`` names: itself, or the decoder in the directory or its folder ``onnx``.

    Returns None when there is none, or the directory is a safetensors checkpoint.
    """
    if path.suffix == SUFFIX:
        return path
    if any(path.glob("*.safetensors")) or any(path.glob("*.safetensors.index.json")):
        return None
    for directory in (path, path / "onnx"):
        files = sorted(directory.glob(f"*{SUFFIX}"))
        named = [directory / name for name in _DECODER_NAMES if directory / name in files]
        if named or len(files) == 1:
            return (named or files)[0]
    return None


def load_onnx(path: Path) -> Model:
    """Imports a decoder from an ONNX file; its weights are read when asked for. Nothing of the file is run.

    Beside the file (or, if its directory is called ``onnx``, one above): ``tokenizer.json``, and
    ``config.json`` or ``genai_config.json``.

    Raises:
        ModelError: a file is missing or damaged, or the graph is not a decoder that can be imported.
    """
    file = OnnxFile(path)
    directory = _settings_directory(path)
    settings = read_settings(directory)
    inputs = find_inputs(file, settings.head_dim, settings.number("vocab_size"))
    importer = Importer(file, inputs, settings.max_positions)
    _check_window(importer, settings)
    importer.read({**RULES, **FUSED_RULES})
    logits = _logits(importer, settings)
    _check_layers(importer)
    emitter = Emitter(importer, logits)
    module = emitter.emit_module()
    config = model_config(file, settings, importer, _sizes(emitter, logits))
    tokenizer = Tokenizer.from_directory(
        directory, config.bos_token_id, config.eos_token_ids, config.vocab_size
    )
    halves = all(dtype == "float16" for dtype in emitter.linears.values())
    parameters = OnnxParameters(exact_tables(emitter.specs, settings))
    shadow_dtype = "float16" if halves else "float32"
    return Model(module, parameters, config, tokenizer, directory, shadow_dtype, settings.values)


def _settings_directory(path: Path) -> Path:
    beside = path.parent
    if beside.name == "onnx" and not (beside / TOKENIZER_NAME).is_file():
        return beside.parent
    return beside


def _check_window(importer: Importer, settings: Settings) -> None:
    """The window of a graph without caches must be short enough to be seen in its mask."""
    window = settings.sliding_window
    if not importer.has_caches and window is not None and window >= LONGEST_SQUARE_MASK:
        raise ModelError(
            f"{importer.file.path}: a sliding window of {window} tokens ({settings.file.name}) cannot be "
            "checked in a graph without past keys and values: export the model with them"
        )


def _logits(importer: Importer, settings: Settings) -> Tensor:
    """The output [1, seq, vocab]."""
    outputs = [output.name for output in importer.file.graph.output]
    found = [importer.tensors[name] for name in outputs if name in importer.tensors]
    fitting = [x for x in found if len(x.dims) == 3 and x.dims[:2] == (ONE, SEQ) and x.dims[2].is_static]
    vocab_size = settings.number("vocab_size")
    if vocab_size is not None:
        fitting = [x for x in fitting if x.dims[2] == Dim(const=vocab_size)]
    if not fitting:
        raise ModelError(
            f"{importer.file.path}: outputs {', '.join(outputs)}: expected logits [batch, sequence, "
            f"{vocab_size or 'vocabulary'}] for every token; export a text-generation model"
        )
    return fitting[0]


def _check_layers(importer: Importer) -> None:
    """Every cache belongs to exactly one layer, and layers are alike."""
    path = importer.file.path
    if not importer.layers:
        raise ModelError(f"{path}: found no attention: expected a transformer decoder")
    used = [name for layer in importer.layers for name in (layer.key_cache, layer.value_cache) if name]
    for found in caches(importer.inputs):
        if used.count(found.name) != 1:
            raise ModelError(
                f"{path}: input {found.name}: expected one layer whose keys or values it holds, "
                f"found {used.count(found.name)}"
            )
    shapes = {(layer.heads, layer.kv_heads, layer.head_dim) for layer in importer.layers}
    if len(shapes) > 1:
        raise ModelError(
            f"{path}: layers with different heads {sorted(shapes)} (heads, key/value heads, head size): "
            "expected all alike"
        )


def _sizes(emitter: Emitter, logits: Tensor) -> dict[str, int]:
    """vocab_size, hidden_size and intermediate_size, as the weights have them."""
    linears = [emitter.specs[name].shape for name in emitter.linears]
    if len(linears) < 2:
        raise ModelError(f"{emitter.importer.file.path}: expected linear layers, found {len(linears)}")
    # The last one but the head projects the feed-forward network's inner values back.
    return {
        "vocab_size": logits.dims[2].const,
        "hidden_size": linears[-1][0],
        "intermediate_size": linears[-2][0],
    }
