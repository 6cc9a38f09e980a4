"""What the shadow path keeps in memory, and where its rows came from so far."""

from __future__ import annotations

from dataclasses import dataclass

from mllm_tvm.artifact import HOT_FILE, Artifact
from relax_passes.quantize_w8a8 import SHADOW_COUNTS


@dataclass(frozen=True)
class ShadowMemory:
    """Bytes of the float rows of hot channels, which stay in memory, and of all parameters.

    ``rows`` are what the shadow paths have done since the artifact was opened: for each linear that has one,
    hot rows read (hits), rows read from the int8 weights (misses), and values looked at. ``linears`` counts
    all quantized linears.
    """

    resident_bytes: int
    model_bytes: int
    linears: int
    rows: tuple[tuple[int, int, int], ...]

    @property
    def resident_share(self) -> float:
        """Resident float rows / all parameters."""
        return self.resident_bytes / self.model_bytes

    @property
    def hits(self) -> int:
        """Outliers that a hot row served."""
        return sum(hot for hot, _, _ in self.rows)

    @property
    def misses(self) -> int:
        """Outliers that an int8 row of the weight file served."""
        return sum(cold for _, cold, _ in self.rows)

    @property
    def hot_share(self) -> float:
        """Hits / outliers; 1 when there was none."""
        outliers = self.hits + self.misses
        return self.hits / outliers if outliers else 1.0

    @property
    def outlier_share(self) -> float:
        """Mean share of outlier channels per token and linear; a linear without a shadow path has none."""
        shares = sum((hot + cold) / values for hot, cold, values in self.rows if values)
        return shares / self.linears if self.linears else 0.0


def shadow_memory(artifact: Artifact) -> ShadowMemory:
    """The figures of an artifact that an engine of this process uses."""
    parameters, files = artifact.parameters, artifact.manifest.parameters
    linears = artifact.manifest.quantization.get("linears")
    counts = [parameters[name].tolist() for name in files if name.endswith(SHADOW_COUNTS)]
    return ShadowMemory(
        resident_bytes=sum(parameters[name].nbytes for name, file in files.items() if file == HOT_FILE),
        model_bytes=sum(parameters[name].nbytes for name in files),
        linears=linears if isinstance(linears, int) else 0,
        rows=tuple((hot, cold, values) for hot, cold, values in counts),
    )
