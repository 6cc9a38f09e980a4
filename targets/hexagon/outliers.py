"""The upper bytes of activations (`targets.outliers`) on HVX: found by vectors, multiplied by output blocks.

The non-zero words of a row are first collected in a list. Comparing a vector with zero gives a bit for each
of its 32 words; 32 vectors make one vector of such bits, and single words are looked at only where one is
set. Each group of output blocks then runs through the list with its sums in registers: a product takes the
packet that loads its weights.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, PointerType, PrimType
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM uses everywhere)

from targets.hexagon.intrin import ALL_BYTES_128, HVX, call_hvx, call_intrinsic, constant, hexagon_add, rotate
from targets.hexagon.tiling import COLUMNS, split_evenly

_LANES = HVX.lanes
_VECTOR = 4 * _LANES
_BITS = 32
"""Vectors whose words are told apart by the bits of a lane."""
_PAIRS = 4
"""Pairs of such lanes that are tested together."""
_BLOCKS, _WORDS = 8, 2
"""Blocks of 32 outputs whose sums are in registers, and words of a step of their loop."""


def emit_sparse(high: tirx.Buffer, w: tirx.Buffer, y: tirx.Buffer, rows: tuple[Expr, Expr]) -> None:
    """Emits ``y += (high @ (w - 128)) * 256`` for rows from ``rows[0]`` to ``rows[1]``, with HVX.

    ``high`` [m, k] int8; ``w`` packed weights [n/32, k/4, 32, 4] uint8; ``y`` [m, n] int32; all start at
    multiples of 128 bytes. The list is a workspace of 2 k bytes and 8.
    """
    words = _Words(high)
    product = _Product(words, w, y)
    with T.serial(*rows) as row:
        words.find(row)
        with T.If(words.count[0] > 0), T.Then():
            words.pad()
            for start, count, blocks in split_evenly(int(y.shape[1]) // COLUMNS, _BLOCKS):
                with T.serial(0, count) as i:
                    product.add(row, start + i * blocks, blocks)


class _Words:
    """Emits the list of the non-zero words of a row: words and their steps, alternating.

    ``offset`` is what the 128 that weights are stored with adds to each output.
    """

    def __init__(self, high: tirx.Buffer) -> None:
        m, self.k = (int(extent) for extent in high.shape)
        self.steps = self.k // 4
        self.high = T.decl_buffer((m * self.k,), "int8", data=high.data, align=_VECTOR)
        self.entries = T.alloc_buffer((2 * (self.steps + _WORDS - 1),), "int32", align=_VECTOR)
        self.count = T.alloc_buffer((1,), "int32")
        self.offset = _vector()

    def find(self, row: Expr) -> None:
        """Lists the words of a row."""
        T.buffer_store(self.count, tirx.const(0, "int32"), [0])
        _set(self.offset, constant(0, _LANES))
        if self.steps < _LANES:  # no vector to load
            self._find_one_by_one(row)
            return
        vectors = -(-self.steps // _LANES)
        for first in range(0, vectors, _BITS):
            self._find_in_vectors(row, first, min(_BITS, vectors - first))

    def pad(self) -> None:
        """Words of zero behind the list, up to a multiple of what is multiplied in a step."""
        zero = tirx.const(0, "int32")
        for i in range(_WORDS - 1):
            self._store(self.count[0] + i, zero, zero)

    def _find_one_by_one(self, row: Expr) -> None:
        with T.serial(0, self.steps) as step, T.If(self._word(row, step) != 0), T.Then():
            self._append(row, step)

    def _find_in_vectors(self, row: Expr, first: int, vectors: int) -> None:
        bits, lanes = self._mark(row, first, vectors), _vector()
        used = _BITS
        while used >= 2 * vectors and used > 2:
            # The upper half of the lanes moves to the unused bits of the lower half.
            used //= 2
            _set(bits, _get(bits) | (rotate(_get(bits), used) << constant(used, _LANES)))
        _set(lanes, _get(bits))
        for start, count, size in split_evenly(used // 2, _PAIRS):
            with T.serial(0, count) as i:
                pair = T.bind(start + i * size)
                found = _any([_pair(lanes, pair + p) for p in range(size)])
                with T.If(found), T.Then(), T.serial(pair, pair + size) as p:
                    self._append_marked(row, first, p, _pair(lanes, p), used)

    def _mark(self, row: Expr, first: int, vectors: int) -> tirx.Buffer:
        """Bit i of a lane says whether its word of vector ``first + i`` is not zero."""
        bits = _vector()
        _set(bits, constant(0, _LANES))
        for i in range(vectors):
            words = self._load(row, first + i)
            found = call_hvx("vgtuw", f"boolx{_VECTOR}", words, constant(0, _LANES))
            mask = tirx.const(1 << i if i < 31 else -(1 << 31), "int32")
            _set(bits, call_hvx("vandqrt.acc", f"int32x{_LANES}", _get(bits), found, mask))
        return bits

    def _load(self, row: Expr, vector: int) -> Expr:
        """A vector of a row. One at its end starts earlier, without the words of the one before."""
        step = min(vector * _LANES, self.steps - _LANES)
        at = row * self.k + 4 * step
        words = T.reinterpret(self.high[tirx.Ramp(at, 1, _VECTOR)], dtype=f"int32x{_LANES}")
        if step == vector * _LANES:
            return words
        new = tirx.Ramp(tirx.const(0, "int32"), 1, _LANES) >= constant(vector * _LANES - step, _LANES)
        return tirx.Select(new, words, constant(0, _LANES))

    def _append_marked(self, row: Expr, first: int, pair: Expr, bits: Expr, used: int) -> None:
        """Bits of two lanes: in each ``32 / used`` parts, of lanes that are ``used`` apart."""
        left = T.alloc_buffer((1,), "int64")
        T.buffer_store(left, bits, [0])
        with T.While(left[0] != tirx.const(0, "int64")):
            bit = T.bind(call_intrinsic("llvm.hexagon.S2.ct0p", "int32", left[0]))
            T.buffer_store(left, left[0] & (left[0] - tirx.const(1, "int64")), [0])
            vector = T.bind(bit & (used - 1))
            lane = 2 * pair + (bit >> 5) + ((bit & (_BITS - 1)) - vector)
            start = (first + vector) * _LANES
            if self.steps % _LANES:
                start = tirx.min(start, self.steps - _LANES)
            self._append(row, T.bind(start + lane))

    def _append(self, row: Expr, step: Expr) -> None:
        word = T.bind(self._word(row, step))
        at = T.bind(self.count[0])
        self._store(at, word, step)
        _set(self.offset, HVX.dot(_get(self.offset), constant(ALL_BYTES_128, _LANES), word))
        T.buffer_store(self.count, at + 1, [0])

    def _store(self, at: Expr, word: Expr, step: Expr) -> None:
        T.buffer_store(self.entries, word, [2 * at])
        T.buffer_store(self.entries, step, [2 * at + 1])

    def _word(self, row: Expr, step: Expr) -> Expr:
        return T.reinterpret(self.high[tirx.Ramp(row * self.k + 4 * step, 1, 4)], dtype="int32")


class _Product:
    """Emits the product of listed words with their rows of the weight."""

    def __init__(self, words: _Words, w: tirx.Buffer, y: tirx.Buffer) -> None:
        self.words, self.y = words, y
        size = int(w.shape[0]) * words.steps * _VECTOR
        self.weights = T.decl_buffer((size,), "uint8", data=w.data, align=_VECTOR)

    def add(self, row: Expr, block: Expr, blocks: int) -> None:
        """Adds it to ``blocks`` * 32 outputs of a row."""
        sums = [_vector() for _ in range(blocks)]
        for acc in sums:
            _set(acc, constant(0, _LANES) - _get(self.words.offset))
        streams = self._streams(block, blocks)
        with T.serial(0, (self.words.count[0] + _WORDS - 1) // _WORDS) as i:
            for u in range(_WORDS):
                self._multiply(sums, streams, i * _WORDS + u)
        for b, acc in enumerate(sums):
            lanes = tirx.Ramp((block + b) * COLUMNS, 1, _LANES)
            T.buffer_store(self.y, self.y[row, lanes] + (_get(acc) << constant(8, _LANES)), [row, lanes])

    def _streams(self, block: Expr, blocks: int) -> list[tirx.Buffer]:
        """The weights of each block, behind a pointer of its own: one instruction then adds a step to it.

        LLVM must not know how far they are apart (as in ``linear``). Each is a power of two of blocks from
        one before it, which is again one instruction, and few depend on each other.
        """
        steps = self.words.steps
        stride = T.bind(hexagon_add(tirx.const(steps, "int32"), tirx.const(0, "int32")))
        streams: list[tirx.Buffer] = []
        for b in range(blocks):
            distance = 1 << b.bit_length() >> 1
            base, start = (streams[b - distance], stride * distance) if b else (self.weights, block * steps)
            pointer = T.bind(T.address_of(base[start * _VECTOR]), PointerType(PrimType("uint8")))
            streams.append(T.decl_buffer((steps * _VECTOR,), "uint8", data=pointer, align=_VECTOR))
        return streams

    def _multiply(self, sums: list[tirx.Buffer], streams: list[tirx.Buffer], entry: Expr) -> None:
        word, step = (T.bind(self.words.entries[2 * entry + i]) for i in range(2))
        for stream, acc in zip(streams, sums, strict=True):
            w = T.reinterpret(stream[tirx.Ramp(step * _VECTOR, 1, _VECTOR)], dtype=f"int32x{_LANES}")
            _set(acc, HVX.dot(_get(acc), w, word))


def _any(values: list[Expr]) -> Expr:
    found = values[0]
    for value in values[1:]:
        found = found | value
    return found != tirx.const(0, "int64")


def _pair(lanes: tirx.Buffer, pair: Expr) -> Expr:
    return T.reinterpret(lanes[tirx.Ramp(2 * pair, 1, 2)], dtype="int64")


def _vector() -> tirx.Buffer:
    return T.alloc_buffer((_LANES,), "int32", align=_VECTOR)


def _get(vector: tirx.Buffer) -> Expr:
    return vector[tirx.Ramp(0, 1, _LANES)]


def _set(vector: tirx.Buffer, value: Expr) -> None:
    T.buffer_store(vector, value, [tirx.Ramp(0, 1, _LANES)])
