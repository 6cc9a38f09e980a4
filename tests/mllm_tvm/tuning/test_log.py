"""Tuning logs: what is found again, and what damage is said to be."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from mllm_tvm.tuning import Shape, TuningError, TuningLog, choose_tilings
from mllm_tvm.tuning.log import default_root
from mllm_tvm.tuning.workload import canonical, sample_tiling, tiling_of, workload
from targets.errors import TargetError
from targets.hexagon.target import HexagonTarget, hexagon_target
from targets.hexagon.tiling import Tiling, rule_tiling

SHAPE = Shape(64, 256, 512)
RECORDS = "database_tuning_record.json"


@pytest.fixture(scope="module")
def target() -> HexagonTarget:
    return hexagon_target("qcom/hexagon-v68")


def _add(log: TuningLog, shape: Shape, seconds: list[float]) -> list[Tiling]:
    """Adds a trial of each duration; returns the tilings."""
    tilings = []
    with log.tuning() as database:
        module = workload(canonical(shape))
        stored = database.commit_workload(module)
        arguments = ms.arg_info.ArgInfo.from_entry_func(module, remove_preproc=False)
        for seed, duration in enumerate(seconds, 1):
            sch = Schedule(module, seed=seed)
            sample_tiling(sch)
            record = ms.database.TuningRecord(
                sch.trace, stored, [duration], log.target.llvm_target(), arguments
            )
            database.commit_tuning_record(record)
            tilings.append(tiling_of(sch))
    return tilings


def test_the_cheapest_tiling_is_found_again(target: HexagonTarget, tmp_path: Path) -> None:
    tilings = _add(TuningLog(target, tmp_path), SHAPE, [3.0, 1.0, 2.0])
    log = TuningLog(target, tmp_path)
    assert log.best(SHAPE) == tilings[1]
    assert log.best(Shape(256, 256, 512)) == tilings[1], "many rows are tuned as 64"
    assert log.best(Shape(64, 256, 12800)) == tilings[1], "many columns are tuned as few"
    assert [float(record.run_secs[0]) for record in log.records(SHAPE)] == [1.0, 2.0, 3.0]
    assert log.best(Shape(64, 256, 544)) is None


def test_nothing_is_tuned_without_a_log(target: HexagonTarget, tmp_path: Path) -> None:
    log = TuningLog(target, tmp_path)
    assert log.best(SHAPE) is None
    assert log.records(SHAPE) == []
    assert not list(tmp_path.iterdir())


def test_a_missing_shape_gets_a_rule_and_a_word(
    target: HexagonTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tuned,) = _add(TuningLog(target, tmp_path), SHAPE, [1.0])
    other = Shape(16, 128, 128)
    assert choose_tilings([SHAPE, other, other], target, tmp_path) == {
        SHAPE: tuned,
        other: rule_tiling(*other),
    }
    said = capsys.readouterr().err
    assert "1 of 2 kernels (16x128x128)" in said
    assert said.count("\n") == 1
    choose_tilings([SHAPE], target, tmp_path)
    assert capsys.readouterr().err == ""


def test_a_shape_that_overflows_the_vtcm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"K=1048576.*VTCM.*262144"):
        choose_tilings([Shape(16, 1 << 20, 32)], hexagon_target("qcom/hexagon-v65"), tmp_path)


def test_an_unfinished_last_line_is_dropped_by_the_next_tuning(target: HexagonTarget, tmp_path: Path) -> None:
    log = TuningLog(target, tmp_path)
    tilings = _add(log, SHAPE, [2.0, 1.0])
    path = log.folder / RECORDS
    path.write_text(path.read_text() + '[0, [[["Sam')
    with pytest.raises(TuningError, match=r"database_tuning_record.json is damaged: line 3"):
        TuningLog(target, tmp_path)
    with log.tuning() as database:
        assert len(database) == 2
    assert TuningLog(target, tmp_path).best(SHAPE) == tilings[1]


def test_an_older_schema_is_refused(target: HexagonTarget, tmp_path: Path) -> None:
    log = TuningLog(target, tmp_path)
    _add(log, SHAPE, [1.0])
    schema = json.loads((log.folder / "schema.json").read_text())
    (log.folder / "schema.json").write_text(json.dumps({**schema, "schema_version": 0}))
    with pytest.raises(TuningError, match=r"'schema_version': 0.*'schema_version': 1.*tune again"):
        TuningLog(target, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "not json\n",
        "[0]\n",
        "{}\n",
        "\xff\n",
        "[9, [[[], []], [1.0], {}, []]]\n",
        "[0, [[[[1]], []], [1.0], {}, []]]\n",
    ],
)
def test_a_damaged_log_is_refused(target: HexagonTarget, tmp_path: Path, damage: str) -> None:
    log = TuningLog(target, tmp_path)
    _add(log, SHAPE, [1.0])
    with (log.folder / RECORDS).open("ab") as file:
        file.write(damage.encode("latin-1"))
    with pytest.raises(TuningError, match=r"damaged"):
        TuningLog(target, tmp_path)


def test_a_missing_file_is_damage(target: HexagonTarget, tmp_path: Path) -> None:
    log = TuningLog(target, tmp_path)
    _add(log, SHAPE, [1.0])
    (log.folder / RECORDS).unlink()
    with pytest.raises(TuningError, match=r"damaged"):
        TuningLog(target, tmp_path)


def test_a_log_that_cannot_be_written_names_another(target: HexagonTarget, tmp_path: Path) -> None:
    (tmp_path / "qcom").write_text("a file where the folder should be")
    with (
        pytest.raises(TuningError, match=r"cannot write tuning log .*--logs"),
        TuningLog(target, tmp_path).tuning(),
    ):
        pass


def test_what_is_shipped_is_installed_and_found(target: HexagonTarget) -> None:
    """Installing copies the folder beside the packages, where ``default_root`` looks."""
    root = default_root()
    settings = tomllib.loads((root.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert root.name in settings["packages"]["find"]["include"]
    installed = {path for pattern in settings["package-data"][root.name] for path in root.glob(pattern)}
    assert installed == {path for path in root.rglob("*.json") if path.is_file()}
    assert {path.parent for path in installed} == {root / target.tag}
    assert TuningLog(target).best(Shape(256, 4096, 11008)) is not None


def test_one_process_tunes_at_a_time(target: HexagonTarget, tmp_path: Path) -> None:
    other = TuningLog(target, tmp_path)
    with TuningLog(target, tmp_path).tuning(), pytest.raises(TuningError, match=r"another process is tuning"):
        _add(other, SHAPE, [1.0])
