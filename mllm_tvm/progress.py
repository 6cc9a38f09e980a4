"""Progress bars: on a terminal only, on the error stream, so piped output stays clean."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress(total: int, description: str, unit: str = "it", show: bool = True) -> tqdm:
    """A bar to use as a context manager, with ``update(n)`` and ``set_postfix_str(text)``.

    Args:
        total: how many ``unit`` the work has.
        description: what the work is.
        unit: what is counted.
        show: False for no bar even on a terminal.
    """
    # disable=None is tqdm's "off unless the stream is a terminal".
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        file=sys.stderr,
        disable=None if show else True,
        leave=False,
        dynamic_ncols=True,
    )
