"""The engine on devices of a tracker: several at a time, and one that dies."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from mllm_tvm.artifact import Artifact
from mllm_tvm.errors import DeviceError
from mllm_tvm.runtime.engine import Engine
from targets.hexagon.farm import Farm

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-hexagon") is None, reason="qemu-hexagon is not installed (apt-get install qemu-user)"
)

PROMPT = "Once upon a time there was"


def generate(artifact: Artifact, device: str) -> tuple[str, int]:
    with Engine(artifact, device) as engine:
        return "".join(engine.generate(PROMPT, 8)), engine.stats.npu_packets


def test_engines_on_two_devices(demo_artifact: Artifact, farm: tuple[str, Farm]) -> None:
    device, _ = farm
    expected = generate(demo_artifact, "host")[0]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: generate(demo_artifact, device), range(3)))
    assert [text for text, _ in results] == [expected] * 3
    assert len({packets for _, packets in results}) == 1
    assert results[0][1] > 0


def test_device_that_dies(demo_artifact: Artifact, farm: tuple[str, Farm]) -> None:
    device, served = farm
    with Engine(demo_artifact, device) as engine:
        children = [c for pid in served.pids for c in psutil.Process(pid).children(recursive=True)]
        (emulator,) = [child for child in children if child.name() == "qemu-hexagon"]
        emulator.kill()
        with pytest.raises(DeviceError, match="was lost"):
            "".join(engine.generate(PROMPT, 8))
    assert generate(demo_artifact, device) == generate(demo_artifact, device)
