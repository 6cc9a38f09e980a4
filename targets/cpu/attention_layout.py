"""What the two attention kernels agree on, so that a row has the same bits in both."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from targets.cpu.attention_output import Output

# Keys whose scores are known when the running softmax moves on; also its partial sums, key modulo 16.
BLOCK = 64
SUMS = 16
# The score of a key that a query does not see, and where its highest score begins: e^(MASKED - FLOOR) is 0.
MASKED = -3.0e38
FLOOR = -1.0e38
# Channels of neighbouring heads that few rows go over together: 4 KiB of a row of keys, a page.
_CHANNELS = 1024


@dataclass(frozen=True)
class Layout:
    """Extents and mask; q is [1, s, heads, head_dim], k and v [1, t, kv_heads, head_dim].

    A *row* is a query of one head; the rows that read a key head are numbered position first.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    causal: bool
    window: int

    @property
    def group(self) -> int:
        """Query heads for each key head."""
        return self.heads // self.kv_heads

    @property
    def neighbours(self) -> int:
        """Key heads that a task for few rows takes together: a divisor of theirs that leaves two tasks."""
        most = max(1, min(_CHANNELS // self.head_dim, self.kv_heads // 2))
        return max(n for n in range(1, most + 1) if self.kv_heads % n == 0)


@dataclass(frozen=True)
class Operands:
    """The kernel's buffers and symbolic lengths: s new positions, the last of t keys."""

    q: tirx.Var
    k: tirx.Var
    v: tirx.Var
    out: Output
    s: tirx.Expr
    t: tirx.Expr
    layout: Layout

    @property
    def rows(self) -> tirx.Expr:
        """Rows of one key head."""
        return self.s * self.layout.group

    def seen(self, row: tirx.Expr) -> tirx.Expr:
        """Keys up to the last one that ``row`` sees."""
        return self.t - self.s + row // self.layout.group + 1 if self.layout.causal else self.t

    def first_block(self, row: tirx.Expr) -> tirx.Expr:
        """Block of the first key that ``row`` sees."""
        window = self.layout.window
        return T.max(self.seen(row) - window, T.int64(0)) // BLOCK if window else T.int64(0)

    def visible(self, key: tirx.Expr, seen: tirx.Expr) -> tirx.Expr:
        """Whether a row that sees the keys up to ``seen`` sees ``key``; both int32."""
        window = self.layout.window
        return tirx.And(key < seen, key >= seen - window) if window else key < seen
