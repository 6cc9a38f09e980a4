"""The packed weight layout against its definition, element by element."""

from __future__ import annotations

import numpy as np
import pytest

from targets.errors import TargetError
from targets.packing import (
    linear_w8a8_reference,
    pack_weight,
    pack_weight_f32,
    packed_shape,
    unpack_weight,
)

SHAPES = [(4, 32), (8, 64), (1, 1), (6, 33), (172, 100), (64, 320)]


def _random_weight(k: int, n: int) -> np.ndarray:
    return np.random.default_rng(k * 1000 + n).integers(-127, 128, (k, n), dtype=np.int8)


@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_each_element_is_where_the_layout_says(k: int, n: int) -> None:
    w = _random_weight(k, n)
    packed = pack_weight(w)
    assert packed.shape == packed_shape(k, n)
    assert packed.dtype == np.uint8
    assert packed.flags["C_CONTIGUOUS"]
    row, column = np.indices((packed.shape[1] * 4, packed.shape[0] * 32))
    values = packed[column // 32, row // 4, column % 32, row % 4].astype(int) - 128
    np.testing.assert_array_equal(values[:k, :n], w)
    values[:k, :n] = 0
    assert not values.any(), "padding must hold 128"


def test_shapes_are_rounded_up() -> None:
    assert packed_shape(172, 100) == (4, 43, 32, 4)
    assert packed_shape(5, 32) == (1, 2, 32, 4)


@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_unpack_inverts_pack(k: int, n: int) -> None:
    w = _random_weight(k, n)
    unpacked = unpack_weight(pack_weight(w), k, n)
    np.testing.assert_array_equal(unpacked, w)
    assert unpacked.dtype == np.int8


def test_a_view_that_is_not_contiguous_is_packed() -> None:
    w = _random_weight(64, 48)
    np.testing.assert_array_equal(pack_weight(w.T), pack_weight(np.ascontiguousarray(w.T)))


@pytest.mark.parametrize(("k", "n"), [(4, 32), (172, 100), (512, 64)])
def test_reference_is_the_int64_product(k: int, n: int) -> None:
    w = _random_weight(k, n)
    steps = packed_shape(k, n)[1]
    x = np.random.default_rng(1).integers(-127, 128, (3, 4 * steps), dtype=np.int8)
    y = linear_w8a8_reference(x, pack_weight(w))
    assert y.dtype == np.int32
    assert y.shape == (3, packed_shape(k, n)[0] * 32)
    np.testing.assert_array_equal(y[:, :n], x[:, :k].astype(np.int64) @ w.astype(np.int64))
    assert not y[:, n:].any()


def test_weights_that_share_an_input_are_concatenated_on_axis_0() -> None:
    first, second = _random_weight(8, 32), _random_weight(8, 64)
    together = np.concatenate([pack_weight(first), pack_weight(second)])
    np.testing.assert_array_equal(together, pack_weight(np.concatenate([first, second], axis=1)))


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 32), np.float32), np.zeros(32, np.int8), np.zeros((0, 4), np.int8)]
)
def test_only_an_int8_matrix_can_be_packed(bad: np.ndarray) -> None:
    with pytest.raises(TargetError, match=r"int8 matrix \[K, N\]"):
        pack_weight(bad)


def test_reference_refuses_an_input_of_another_length() -> None:
    with pytest.raises(TargetError, match=r"K = 12"):
        linear_w8a8_reference(np.zeros((2, 8), np.int8), pack_weight(np.zeros((12, 32), np.int8)))


@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_float_panels(k: int, n: int) -> None:
    w = np.random.default_rng(n).standard_normal((k, n), np.float32)
    panels = pack_weight_f32(w)
    assert panels.shape == (-(-n // 32), k, 32)
    columns = panels.transpose(1, 0, 2).reshape(k, -1)
    np.testing.assert_array_equal(columns[:, :n], w)
    assert not columns[:, n:].any()


@pytest.mark.parametrize(
    "w", [np.zeros((2, 3), np.int8), np.zeros(4, np.float32), np.zeros((0, 4), np.float32)]
)
def test_what_is_no_float_weight(w: np.ndarray) -> None:
    with pytest.raises(TargetError, match="expected a float32 matrix"):
        pack_weight_f32(w)
