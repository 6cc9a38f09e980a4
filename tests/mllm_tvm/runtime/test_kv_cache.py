"""Key and value caches."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi

from mllm_tvm.errors import PromptError
from mllm_tvm.manifest import CacheSpec
from mllm_tvm.runtime.kv_cache import KvCache
from mllm_tvm.tensor_file import ALIGNMENT


@pytest.fixture
def cache() -> KvCache:
    return KvCache([CacheSpec("k", "%1", (2, 3)), CacheSpec("v", "%2", (5,))], 10)


def test_appended_rows_are_seen_in_order(cache: KvCache) -> None:
    rows = np.arange(42, dtype=np.float32).reshape(7, 2, 3)
    cache.append("k", 4, rows[4:])
    cache.append("k", 0, rows[:4])
    np.testing.assert_array_equal(cache.view("k", 7), rows, strict=True)
    np.testing.assert_array_equal(cache.view("k", 2), rows[:2], strict=True)


def test_views_share_memory_and_suit_compiled_functions(cache: KvCache) -> None:
    view = cache.view("v", 3)
    cache.append("v", 1, np.full((1, 5), 7, np.float32))
    assert view[1].tolist() == [7.0] * 5
    assert view.flags.c_contiguous
    assert view.ctypes.data % ALIGNMENT == 0
    assert tvm_ffi.from_dlpack(view, require_alignment=ALIGNMENT).shape == (3, 5)


def test_beyond_the_context(cache: KvCache) -> None:
    cache.append("v", 9, np.ones((1, 5), np.float32))
    with pytest.raises(PromptError, match="position 11 is beyond the context of 10 tokens"):
        cache.append("v", 9, np.ones((2, 5), np.float32))
    with pytest.raises(PromptError, match="position 11"):
        cache.view("v", 11)
