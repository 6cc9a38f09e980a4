"""What the shadow path keeps in memory, and where its rows came from so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mllm_tvm.artifact import HOT_FILE, Artifact
from relax_passes.quantize_w8a8 import SHADOW_COUNTS


@dataclass(frozen=True)
class ShadowMemory:
    """Bytes of the float rows of hot channels, which stay in memory, and of all parameters.

    ``rows`` are what the shadow paths have done: for each linear that has one, hot rows read (hits), rows
    read from the int8 weights (misses), values looked at, and tokens. ``linears`` counts all quantized
    linears.
    """

    resident_bytes: int
    model_bytes: int
    linears: int
    rows: tuple[tuple[int, ...], ...]

    @property
    def resident_share(self) -> float:
        """Resident float rows / all parameters."""
        return self.resident_bytes / self.model_bytes

    @property
    def hits(self) -> int:
        """Outliers that a hot row served."""
        return sum(row[0] for row in self.rows)

    @property
    def misses(self) -> int:
        """Outliers that an int8 row of the weight file served."""
        return sum(row[1] for row in self.rows)

    @property
    def hot_share(self) -> float:
        """Hits / outliers; 1 when there was none."""
        outliers = self.hits + self.misses
        return self.hits / outliers if outliers else 1.0

    @property
    def outlier_share(self) -> float:
        """Mean share of outlier channels per token and linear; a linear without a shadow path has none."""
        return self._per_linear((hot + cold) / values for hot, cold, values, _ in self.rows if values)

    @property
    def outliers(self) -> float:
        """Mean number of outlier channels per token and linear."""
        return self._per_linear((hot + cold) / tokens for hot, cold, _, tokens in self.rows if tokens)

    def since(self, earlier: ShadowMemory) -> ShadowMemory:
        """What was done after ``earlier``, a state of the same artifact."""
        pairs = zip(self.rows, earlier.rows, strict=True)
        return replace(self, rows=tuple(tuple(np.subtract(*pair).tolist()) for pair in pairs))

    def report(self) -> dict[str, object]:
        """The figures for a JSON report."""
        return {
            "resident_bytes": self.resident_bytes,
            "resident_share": round(self.resident_share, 6),
            "outliers": round(self.outliers, 4),
            "outlier_share": round(self.outlier_share, 6),
            "rows_read": self.hits + self.misses,
            "hits": self.hits,
            "misses": self.misses,
            "hot_share": round(self.hot_share, 4),
            "linears": len(self.rows),
        }

    def _per_linear(self, values: Iterable[float]) -> float:
        return sum(values) / self.linears if self.linears else 0.0


def shadow_memory(artifact: Artifact) -> ShadowMemory | None:
    """The figures of an artifact since engines of this process use it; None when it has no shadow path."""
    parameters, files = artifact.parameters, artifact.manifest.parameters
    linears = artifact.manifest.quantization.get("linears")
    counts = [parameters[name].tolist() for name in files if name.endswith(SHADOW_COUNTS)]
    if not counts:
        return None
    return ShadowMemory(
        resident_bytes=sum(parameters[name].nbytes for name, file in files.items() if file == HOT_FILE),
        model_bytes=sum(parameters[name].nbytes for name in files),
        linears=linears if isinstance(linears, int) else 0,
        rows=tuple(map(tuple, counts)),
    )
