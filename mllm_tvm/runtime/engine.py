"""The engine: an artifact, ready to generate text on a device."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
import tvm_ffi
from tvm.relax import VirtualMachine

from mllm_tvm.artifact import CPU_LIBRARY, DEVICE_SERVER, HOST_SERVER, Artifact, load_artifact
from mllm_tvm.errors import ArtifactError, PromptError
from mllm_tvm.sampling import Sampler, SamplingConfig
from mllm_tvm.simulate.function_durations import FunctionDurations
from mllm_tvm.simulate.profile import load_profile
from mllm_tvm.tokenizer import Tokenizer
from targets.cpu.build import load_vm
from targets.cpu.threads import threads_setting, use_threads
from targets.hexagon.session import DeviceSession, open_session

from .host_cpu import check_host_cpu
from .runner import ModelRunner, Prefill, RunnerConfig
from .shadow_memory import shadow_memory
from .stats import RunStats
from .tasks import ScheduleError, Span


class Engine:
    """Runs a compiled model; a context manager. Not safe for use by several threads at once.

    CPU functions use as many threads as the environment variable TVM_NUM_THREADS says, by default one; the
    number changes times, never results.

    Args:
        artifact: an artifact or its directory.
        device: ``qemu`` (the simulated Hexagon), ``host`` (the same server on this machine's CPU) or
            ``tracker://host:port/key``.
        policy: ``ours``, ``paper``, ``in-order`` or ``sequential``; None: the one the artifact names. It
            changes times, never results.
        chunk_lengths: which of the compiled chunk lengths to use; None for all.
        profile: name or TOML file of a device profile: results are still computed on ``device``, but the
            scheduler and all times follow what the profile says each function takes. None: the wall clock.

    Raises ArtifactError for an artifact that is damaged or for another CPU, DeviceError when the device
    cannot be opened, ScheduleError for an unknown policy or a chunk length that was not compiled,
    SimulationError for an unknown or damaged profile.
    """

    def __init__(
        self,
        artifact: Artifact | str | os.PathLike[str],
        device: str = "qemu",
        policy: str | None = None,
        chunk_lengths: Sequence[int] | None = None,
        profile: str | None = None,
    ) -> None:
        self.artifact = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
        policy = policy or self.artifact.manifest.policy
        config = _runner_config(self.artifact, policy, chunk_lengths, profile)
        self.tokenizer = _open_tokenizer(self.artifact)
        self.max_positions = config.max_positions
        self._virtual = profile is not None
        self._stats = RunStats(device, policy, clock=profile or "wall")
        self._generation = 0
        self._shadow = shadow_memory(self.artifact)
        self._runner = _open_runner(self.artifact, device, config)
        # Also when the engine is dropped, or still open at exit: the device is a process.
        self._finalizer = weakref.finalize(self, self._runner.close)

    @property
    def stats(self) -> RunStats:
        """What the last run did; zeros before the first."""
        shadow = shadow_memory(self.artifact)
        if shadow is not None and self._shadow is not None:
            shadow = shadow.since(self._shadow)
        return replace(self._stats, shadow=shadow)

    def generate(
        self,
        prompt: str,
        max_tokens: int = 256,
        sampling: SamplingConfig | None = None,
        on_stats: Callable[[RunStats], None] | None = None,
    ) -> Iterator[str]:
        """Stream the text that continues ``prompt``, until EOS, ``max_tokens`` or the end of the context.

        ``sampling`` defaults to greedy; ``on_stats`` is called once at the end. The work is done while the
        result is iterated; starting another run ends this one. Raises PromptError when the prompt is empty or
        longer than the context, or ``max_tokens`` is below 1, and DeviceError when the device fails.
        """
        if max_tokens < 1:
            raise PromptError(f"max_tokens is {max_tokens}: expected at least 1")
        ids = self.tokenizer.encode(prompt)
        self._check_length(ids)
        return self._stream(ids, max_tokens, Sampler(sampling or SamplingConfig()), on_stats)

    def prefill(self, token_ids: Sequence[int]) -> np.ndarray:
        """Start a new sequence; logits of the token that follows, [vocab] float32."""
        return self._start(token_ids, all_logits=False).logits[-1]

    def forward(self, token_ids: Sequence[int]) -> np.ndarray:
        """Start a new sequence; logits after each token, [seq, vocab] float32."""
        return self._start(token_ids, all_logits=True).logits

    def decode(self, token_id: int) -> np.ndarray:
        """Append one token on the CPU; logits of the token that follows, [vocab] float32."""
        self._check_ids([token_id])
        return self._open().decode(token_id)

    def close(self) -> None:
        """End the workers and the device; the engine cannot be used afterwards."""
        self._finalizer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> ModelRunner:
        if not self._finalizer.alive:
            raise PromptError("the engine is closed: open a new one")
        return self._runner

    def _start(self, token_ids: Sequence[int], all_logits: bool) -> Prefill:
        self._check_length(token_ids)
        self._check_ids(token_ids)
        runner = self._open()
        self._generation += 1
        runner.reset()
        self._shadow = shadow_memory(self.artifact)
        begin = time.perf_counter()
        result = runner.prefill(token_ids, all_logits)
        self._stats = RunStats(
            device=self._stats.device,
            policy=self._stats.policy,
            chunk_lengths=tuple(chunk.length for chunk in result.chunks),
            prompt_tokens=len(token_ids),
            npu_calls=result.npu.calls,
            npu_packets=result.npu.packets,
            npu_instructions=result.npu.instructions,
            npu_hvx=result.npu.hvx,
            prefill_s=_end(result.timeline) if self._virtual else time.perf_counter() - begin,
            timeline=result.timeline,
            scheduling=result.scheduling,
            clock=self._stats.clock,
        )
        return result

    def _stream(
        self,
        ids: Sequence[int],
        max_tokens: int,
        sampler: Sampler,
        on_stats: Callable[[RunStats], None] | None,
    ) -> Iterator[str]:
        decoder = self.tokenizer.stream(ids)
        try:
            for token in self._tokens(ids, max_tokens, sampler):
                if text := decoder.push(token):
                    yield text
            if text := decoder.flush():
                yield text
        finally:
            if on_stats is not None:
                on_stats(self.stats)

    def _tokens(self, ids: Sequence[int], max_tokens: int, sampler: Sampler) -> Iterator[int]:
        """The generated tokens, EOS left out; keeps ``stats`` current."""
        begin = time.perf_counter()
        token = sampler.next(self._start(ids, all_logits=False).logits[-1])
        generation, prefill_end = self._generation, time.perf_counter()
        ttft_s = self._stats.prefill_s if self._virtual else prefill_end - begin
        self._stats = replace(self._stats, ttft_s=ttft_s)
        decode_s = 0.0
        for count in range(1, max_tokens + 1):
            if token in self.tokenizer.eos_ids:
                return
            self._stats = replace(self._stats, generated_tokens=count, decode_s=decode_s)
            yield token
            if self._generation != generation:
                raise PromptError("another run was started on this engine: this generation cannot go on")
            if count == max_tokens or len(ids) + count > self.max_positions:
                return
            begin = time.perf_counter()
            token = sampler.next(self._open().decode(token))
            decode_s += self._open().virtual_decode_s() if self._virtual else time.perf_counter() - begin

    def _check_length(self, token_ids: Sequence[int]) -> None:
        if not len(token_ids):
            raise PromptError("the prompt has 0 tokens: expected at least 1")
        if len(token_ids) > self.max_positions:
            raise PromptError(
                f"the prompt has {len(token_ids)} tokens, the context {self.max_positions}: shorten it"
            )

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        vocabulary = self.artifact.manifest.model_integer("vocab_size")
        for token in token_ids:
            if not 0 <= token < vocabulary:
                raise PromptError(f"token id {token} is out of range: expected 0 to {vocabulary - 1}")


def _end(timeline: Sequence[Span]) -> float:
    return max((span.end for span in timeline), default=0.0)


def _runner_config(
    artifact: Artifact, policy: str, chunk_lengths: Sequence[int] | None, profile: str | None
) -> RunnerConfig:
    compiled = artifact.manifest.chunk_lengths
    chosen = compiled if chunk_lengths is None else tuple(chunk_lengths)
    wrong = [length for length in chosen if length not in compiled]
    if wrong or not chosen:
        raise ScheduleError(
            f"chunk lengths {chosen}: expected one or more of those the artifact was compiled for, {compiled}"
        )
    hidden_size = artifact.manifest.model_integer("hidden_size")
    durations = FunctionDurations(load_profile(profile), hidden_size) if profile is not None else None
    return RunnerConfig(
        chosen, artifact.manifest.model_integer("max_positions"), hidden_size, policy, durations
    )


def _open_runner(artifact: Artifact, device: str, config: RunnerConfig) -> ModelRunner:
    check_host_cpu(artifact.manifest.host_cpu)
    arrays = artifact.parameters
    parameters = {name: tvm_ffi.from_dlpack(array) for name, array in arrays.items()}
    library = artifact.file(CPU_LIBRARY)
    server = artifact.file(HOST_SERVER if device == "host" else DEVICE_SERVER)

    def open_functions() -> VirtualMachine:
        use_threads(threads_setting())
        return load_vm(library)

    def connect() -> DeviceSession:
        return open_session(device, server)

    return ModelRunner(artifact.manifest.graph, parameters, arrays, open_functions, connect, config)


def _open_tokenizer(artifact: Artifact) -> Tokenizer:
    bos = artifact.manifest.model.get("bos_token_id")
    eos = artifact.manifest.model.get("eos_token_ids")
    if not isinstance(eos, list | tuple) or not (bos is None or isinstance(bos, int)):
        raise ArtifactError(f"the manifest has token ids bos {bos!r}, eos {eos!r}: compile the model again")
    return Tokenizer.from_directory(
        artifact.path, bos, tuple(eos), artifact.manifest.model_integer("vocab_size")
    )
