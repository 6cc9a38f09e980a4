"""Tuning on emulated devices, some of which die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tvm.rpc.tracker

from mllm_tvm.cli import main
from mllm_tvm.tuning import Shape, TuningError, TuningLog
from mllm_tvm.tuning.builder import Candidate
from mllm_tvm.tuning.measure import TIE_BREAK, cost_packets
from mllm_tvm.tuning.tuner import Progress, TuneSettings, tune
from targets.errors import DeviceError, TargetError
from targets.hexagon.farm import DEFAULT_KEY, Farm
from targets.hexagon.session import DeviceSession, open_session
from targets.hexagon.target import HexagonTarget, hexagon_target
from targets.hexagon.tiling import Tiling, traffic
from targets.hexagon.tracker import Tracker

SHAPE = Shape(4, 32, 64)
SETTINGS = TuneSettings(trials=4, batch=2, devices=1)
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-hexagon") is None, reason="qemu-hexagon is not installed (Debian: qemu-user)"
)


@pytest.fixture(scope="module")
def target() -> HexagonTarget:
    return hexagon_target("qcom/hexagon-v68")


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest of a model whose only kernel is that of SHAPE."""
    folder = tmp_path_factory.mktemp("model")
    function = {"name": "linear", "processor": "npu", "kind": "linear", "k": SHAPE.k, "n": SHAPE.n}
    (folder / "manifest.json").write_text(json.dumps({"graph": {"functions": [function]}}))
    return str(folder)


@contextmanager
def _farm(devices: int) -> Iterator[str]:
    """A tracker with devices, and its address."""
    tracker = tvm.rpc.tracker.Tracker("127.0.0.1", port=9390, port_end=9990, silent=True)
    try:
        with Farm(Tracker("127.0.0.1", tracker.port), devices):
            yield f"127.0.0.1:{tracker.port}"
    finally:
        tracker.terminate()


def _open(server: Path) -> DeviceSession:
    return open_session("qemu", server)


def _tune(log: TuningLog, opener: object = _open, settings: TuneSettings = SETTINGS) -> list[Progress]:
    reports: list[Progress] = []
    tune([SHAPE], log.target, log, opener, settings, reports.append)  # type: ignore[arg-type]
    return reports


@needs_qemu
def test_tuning_keeps_its_trials_and_goes_on_where_it_stopped(target: HexagonTarget, tmp_path: Path) -> None:
    reports = _tune(TuningLog(target, tmp_path))
    assert [report.trials for report in reports] == [3, 4], "the rule first, then batches of 2"
    assert reports[1].best_packets <= reports[0].best_packets
    assert 0 < reports[1].share < 1
    log = TuningLog(target, tmp_path)
    assert len(log.records(SHAPE)) == 4
    assert log.best(SHAPE) is not None
    assert [report.trials for report in _tune(log)] == [4], "nothing is left to do"


@needs_qemu
def test_tuning_through_a_tracker(
    target: HexagonTarget, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two devices and two compilers; then an unknown key, and no tracker: finished trials stay."""
    command = ["tune", model, "--chunk-lengths", "4", "--logs", str(tmp_path), "--json", "--trials"]
    with _farm(2) as tracker:
        assert main([*command, "5", "--tracker", tracker]) == 0
        (progress,) = json.loads(capsys.readouterr().out).values()
        assert (progress["trials"], progress["failed"]) == (5, 0)
        assert main([*command, "6", "--tracker", tracker, "--key", "phone", "--devices", "1"]) == 1
        said = capsys.readouterr().err
        assert f"has no device 'phone'; it has ['{DEFAULT_KEY}']" in said
        assert "5 finished trials of this shape are in" in said
    assert main([*command, "6", "--tracker", tracker, "--devices", "1"]) == 1
    assert f"cannot reach an RPC tracker at {tracker}" in capsys.readouterr().err
    assert len(TuningLog(target, tmp_path).records(SHAPE)) == 5


@needs_qemu
def test_a_device_that_dies_is_replaced(target: HexagonTarget, tmp_path: Path) -> None:
    opened: list[int] = []

    def opener(server: Path) -> DeviceSession:
        session = _open(server)
        assert session.pid is not None
        opened.append(session.pid)
        if len(opened) == 1:
            os.kill(session.pid, signal.SIGKILL)
        return session

    log = TuningLog(target, tmp_path)
    reports = _tune(log, opener, TuneSettings(trials=2, batch=1, devices=1))
    assert reports[-1].trials == 2
    assert reports[-1].failed == 0
    assert len(opened) == 3, "the rule's device, its replacement, one for the batch"


@needs_qemu
def test_finished_trials_are_kept_when_no_device_is_left(target: HexagonTarget, tmp_path: Path) -> None:
    opened = threading.Semaphore(2)

    def opener(server: Path) -> DeviceSession:
        if not opened.acquire(blocking=False):
            raise DeviceError("cannot reach an RPC tracker at 127.0.0.1:9190")
        return _open(server)

    log = TuningLog(target, tmp_path)
    with pytest.raises(DeviceError, match=r"4x32x64.*127.0.0.1:9190.*3 finished trials.*goes on"):
        _tune(log, opener)
    assert len(TuningLog(target, tmp_path).records(SHAPE)) == 3
    assert _tune(TuningLog(target, tmp_path))[-1].trials == 4


def test_cost_is_the_larger_of_packets_and_bytes(target: HexagonTarget) -> None:
    tiling = Tiling(1, 8, 8)
    shape = Shape(1, 2048, 2048)
    moving = traffic(*shape, tiling).memory / target.bytes_per_packet
    assert cost_packets(shape, tiling, 10 * moving, target) == pytest.approx((10 + TIE_BREAK) * moving)
    assert cost_packets(shape, tiling, moving / 10, target) == pytest.approx((1 + TIE_BREAK / 10) * moving)


def test_a_candidate_survives_the_way_to_the_runner() -> None:
    candidate = Candidate(Path("/tmp/a b/server"), "candidate3", SHAPE, Tiling(4, 2, 16))
    assert Candidate.decode(candidate.encode()) == candidate


def test_a_shape_that_cannot_run_is_refused_before_anything_is_tuned(tmp_path: Path) -> None:
    log = TuningLog(hexagon_target("qcom/hexagon-v65"), tmp_path)
    for shape, cause in ((Shape(4, 1 << 20, 32), "VTCM"), (Shape(16, 1 << 16, 1 << 17), "32-bit")):
        with pytest.raises(TargetError, match=cause):
            tune([SHAPE, shape], log.target, log, _open, SETTINGS, print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"trials": 0}, {"batch": 0}, {"devices": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(TuningError, match=r"at least 1"):
        TuneSettings(**settings)


@pytest.mark.parametrize(
    ("schema", "message"), [('{"schema_version": 0}', "tune again"), ("not json", "is damaged: line 1")]
)
def test_a_log_of_another_schema_is_refused_and_kept(
    target: HexagonTarget,
    tmp_path: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
    schema: str,
    message: str,
) -> None:
    path = tmp_path / target.tag / "schema.json"
    path.parent.mkdir(parents=True)
    path.write_text(schema)
    assert main(["tune", model, "--logs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert path.read_text() == schema


def test_an_unknown_model_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "GPT-5", "--trials", "1"]) == 1
    assert "mistral-7b" in capsys.readouterr().err


def test_an_unknown_target_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "Gemma-2B", "--target", "qcom/hexagon-v99"]) == 1
    assert "qcom/hexagon-v81" in capsys.readouterr().err
