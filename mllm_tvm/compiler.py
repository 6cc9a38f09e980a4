"""Compiles a model and a recipe into an artifact: passes, kernels, libraries, parameters, manifest."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import ir

from mllm_tvm.artifact import (
    CONFIG_FILE,
    CPU_LIBRARY,
    DEVICE_SERVER,
    HOST_SERVER,
    RECIPE_FILE,
    TOKENIZER_FILE,
    Artifact,
    write_artifact,
)
from mllm_tvm.call_graph import extract_graph
from mllm_tvm.errors import CompileError
from mllm_tvm.frontend import Model
from mllm_tvm.manifest import SCHEMA_VERSION, Graph, Manifest
from mllm_tvm.npu_kernels import npu_kernels
from mllm_tvm.parameters import parameter_blocks, parameter_file
from mllm_tvm.progress import StageObserver, Stages, progress
from mllm_tvm.recipe import Recipe
from mllm_tvm.runtime.policies import DEFAULT_POLICY, find_policy
from mllm_tvm.tensor_file import TensorWriter
from relax_passes import pipeline
from relax_passes.errors import PassError
from relax_passes.graph import split_params, static_shape
from targets.cpu.build import build, export_library
from targets.cpu.target import cpu_target
from targets.hexagon.codegen import build_object
from targets.hexagon.target import HexagonTarget, hexagon_target, host_target
from targets.hexagon.toolchain import link_server

DEFAULT_TARGET = "qcom/hexagon-v68"
DEFAULT_CHUNK_LENGTHS = (16, 64, 256)
MAX_CHUNK_LENGTH = 4096


@dataclass(frozen=True)
class CompiledModel:
    """A model after the passes, ready to be built and saved."""

    model: Model
    recipe: Recipe
    module: ir.IRModule
    graph: Graph
    target: HexagonTarget
    chunk_lengths: tuple[int, ...]
    policy: str

    def save(self, path: str | os.PathLike[str], on_stage: StageObserver | None = None) -> Artifact:
        """Builds everything into an artifact directory at ``path``, replacing an older artifact there.

        ``on_stage(name, seconds)`` is called after each stage.

        Raises:
            ToolchainError: the cross compiler is missing or failed.
            ArtifactError: ``path`` exists and is not an artifact.
        """
        stages = Stages(on_stage)
        return write_artifact(path, self._manifest(), lambda directory: self._fill(directory, stages))

    def _fill(self, directory: Path, stages: Stages) -> None:
        steps = [
            ("CPU library", self._build_cpu_library),
            ("Hexagon server", self._build_device_server),
            ("host server", self._build_host_server),
            ("parameters", self._write_parameters),
            ("tokenizer and recipe", self._write_files),
        ]
        with progress(len(steps), "compiling", unit="step") as bar:
            for name, step in steps:
                bar.set_postfix_str(name)
                with stages.measure(name):
                    step(directory)
                bar.update()

    def _build_cpu_library(self, directory: Path) -> None:
        functions = {name: f for name, f in self.module.functions.items() if name.name_hint != "main"}
        public = {name: f.with_attr("global_symbol", name.name_hint) for name, f in functions.items()}
        target = cpu_target()
        export_library(build(ir.IRModule(public), target), directory / CPU_LIBRARY)

    def _build_device_server(self, directory: Path) -> None:
        self._build_server(directory / DEVICE_SERVER, self.target.llvm_target(), hexagon=True)

    def _build_host_server(self, directory: Path) -> None:
        self._build_server(directory / HOST_SERVER, host_target(), hexagon=False)

    def _build_server(self, out: Path, target: tvm.target.Target, hexagon: bool) -> None:
        kernels = npu_kernels(self.graph.functions, self.chunk_lengths, self.target, hexagon)
        out.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            kernel_object = Path(scratch) / "kernels.o"
            build_object(kernels, target, kernel_object)
            link_server([kernel_object], "qemu" if hexagon else "host", out)

    def _write_parameters(self, directory: Path) -> None:
        types = self._parameter_types()
        files: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
        for name, layout in types.items():
            files.setdefault(parameter_file(name), {})[name] = layout
        with progress(len(types), "writing parameters", unit="tensor") as bar:
            for file, layouts in files.items():
                with TensorWriter(directory / file, layouts) as writer:
                    for name, (_, dtype) in layouts.items():
                        blocks = parameter_blocks(name, dtype, self.model.parameters, self.recipe)
                        writer.write(name, blocks)
                        bar.update()

    def _parameter_types(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape and dtype of every parameter of ``main``."""
        _, parameters = split_params(self.module["main"])
        return {p.name: (tuple(static_shape(p)), str(p.ty.dtype)) for p in parameters}

    def _write_files(self, directory: Path) -> None:
        """What came with the model, and the recipe."""
        self.model.tokenizer.backend.save(str(directory / TOKENIZER_FILE))
        (directory / CONFIG_FILE).write_text(json.dumps(self.model.settings, indent=1) + "\n")
        self.recipe.save(directory / RECIPE_FILE)

    def _manifest(self) -> Manifest:
        config = self.model.config
        return Manifest(
            schema_version=SCHEMA_VERSION,
            model={
                "architecture": config.architecture,
                "hash": config.content_hash,
                "vocab_size": config.vocab_size,
                "max_positions": config.max_positions,
                "num_layers": config.num_layers,
                "hidden_size": config.hidden_size,
                "bos_token_id": config.bos_token_id,
                "eos_token_ids": list(config.eos_token_ids),
            },
            target=self.target.tag,
            host_cpu=tvm.target.codegen.llvm_get_system_cpu(),
            chunk_lengths=self.chunk_lengths,
            quantization={
                "scheme": self.recipe.scheme,
                "activation": self.recipe.activation,
                "linears": self.recipe.linear_count,
            },
            graph=self.graph,
            parameters={name: parameter_file(name) for name in self._parameter_types()},
            files={},
            policy=self.policy,
        )


def compile(
    model: Model,
    recipe: Recipe,
    target: str = DEFAULT_TARGET,
    chunk_lengths: Sequence[int] = DEFAULT_CHUNK_LENGTHS,
    observe: pipeline.Observer | None = None,
    fuse_mlp: bool = True,
    policy: str = DEFAULT_POLICY,
) -> CompiledModel:
    """Runs the passes on ``model`` with the scales of ``recipe``; ``.save(path)`` builds the artifact.

    Args:
        target: a Hexagon target tag, for example ``qcom/hexagon-v68``.
        chunk_lengths: row counts of the NPU kernels; a prompt is cut into chunks of these lengths.
        observe: called with each pass's name and module.
        fuse_mlp: gated MLPs run on the NPU in one launch, with an integer activation and 16-bit inputs in
            place of shadow paths; otherwise their activations are computed in float on the CPU.
        policy: the scheduling policy that engines use unless told otherwise.

    Raises:
        CalibrationError: the recipe is for another model.
        CompileError: a chunk length out of range, or an op without a rule.
        TargetError: an unknown target tag.
        ScheduleError: an unknown policy.
    """
    lengths = check_settings(target, chunk_lengths, policy)
    recipe.check(model)
    try:
        module = pipeline.run(model.module, recipe.schemes(), model.shadow_dtype, observe, fuse_mlp=fuse_mlp)
    except PassError as error:
        raise CompileError(f"cannot compile {model.path}: {error}") from error
    graph = extract_graph(module)
    return CompiledModel(model, recipe, module, graph, hexagon_target(target), lengths, policy)


def check_settings(target: str, lengths: Sequence[int], policy: str) -> tuple[int, ...]:
    """The chunk lengths in order, each once; raises what :func:`compile` raises for these settings."""
    hexagon_target(target)
    find_policy(policy)
    bad = [length for length in lengths if not 2 <= length <= MAX_CHUNK_LENGTH]
    if bad or not lengths:
        raise CompileError(
            f"chunk lengths are {list(lengths)}: expected one or more of 2 to {MAX_CHUNK_LENGTH} rows "
            "(single rows run on the CPU)"
        )
    return tuple(sorted(set(lengths)))
