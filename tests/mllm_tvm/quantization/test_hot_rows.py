"""Hot channels: the rows that serve most outliers for their bytes, over all linears."""

import numpy as np
import pytest

from mllm_tvm.quantization.hot_rows import SERVED, Outliers, bytes_needed, choose_hot

# 100 outliers: one channel of the narrow linear has most; the wide one's rows cost 8 times as much.
NARROW = Outliers(np.array([2, 60, 0, 10]), readers=1, row_bytes=10)
WIDE = Outliers(np.array([4, 10]), readers=2, row_bytes=80)


def test_best_rows_first_until_enough_are_served():
    hot = choose_hot([NARROW, WIDE], np.inf)
    assert hot == [[1, 3], [1]]
    served = 60 + 10 + 2 * 10
    assert served / 100 >= SERVED > (served - 20) / 100
    assert bytes_needed([NARROW, WIDE]) == 2 * 10 + 80


@pytest.mark.parametrize(("most", "hot"), [(0, [[], []]), (25, [[1, 3], []]), (100, [[1, 3], [1]])])
def test_memory_is_limited(most, hot):
    assert choose_hot([NARROW, WIDE], most) == hot


def test_no_outliers_need_no_rows():
    none = Outliers(np.zeros(5), 1, 10)
    assert choose_hot([none, Outliers(np.zeros(0), 2, 10)], np.inf) == [[], []]
    assert bytes_needed([none]) == 0
