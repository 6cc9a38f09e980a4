"""What the shadow path keeps in memory, and where its rows came from so far."""

from __future__ import annotations

from dataclasses import dataclass

from mllm_tvm.artifact import HOT_FILE, SHADOW_FILE, Artifact
from relax_passes.quantize_w8a8 import SHADOW, SHADOW_COUNTS


@dataclass(frozen=True)
class ShadowMemory:
    """Bytes of float rows that stay in memory, of the model without the shadow file, and of that file.

    ``hot_rows`` and ``file_rows`` are the rows the shadow path has read since the artifact was opened: from
    memory, and (misses) from the mapped file. ``channels`` has both by weight, with the weight's channels.
    """

    resident_bytes: int
    model_bytes: int
    file_bytes: int
    hot_rows: int
    file_rows: int
    channels: tuple[tuple[int, int], ...]

    @property
    def resident_share(self) -> float:
        """Resident float rows / model."""
        return self.resident_bytes / self.model_bytes

    @property
    def hot_share(self) -> float:
        """Rows read from memory / rows read; 1 when none was needed."""
        rows = self.hot_rows + self.file_rows
        return self.hot_rows / rows if rows else 1.0

    def outlier_share(self, tokens: int, linears: int) -> float:
        """Mean share of outlier channels per token and linear, after ``tokens`` tokens."""
        shares = sum(rows / channels for rows, channels in self.channels)
        return shares / (tokens * linears) if tokens and linears else 0.0


def shadow_memory(artifact: Artifact) -> ShadowMemory:
    """The figures of an artifact that an engine of this process uses."""
    parameters, files = artifact.parameters, artifact.manifest.parameters
    sizes: dict[str, int] = {}
    for name, file in files.items():
        sizes[file] = sizes.get(file, 0) + parameters[name].nbytes
    counts = {n.removesuffix(SHADOW_COUNTS): parameters[n] for n in files if n.endswith(SHADOW_COUNTS)}
    return ShadowMemory(
        resident_bytes=sizes.get(HOT_FILE, 0),
        model_bytes=sum(size for file, size in sizes.items() if file != SHADOW_FILE),
        file_bytes=sizes.get(SHADOW_FILE, 0),
        hot_rows=sum(int(count[0]) for count in counts.values()),
        file_rows=sum(int(count[1]) for count in counts.values()),
        channels=tuple((int(c.sum()), len(parameters[name + SHADOW])) for name, c in counts.items()),
    )
