"""The device server's C code under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.hexagon.toolchain import include_flags, server_sources

SOURCES = Path(__file__).parent / "c"
SANITIZE = ["-g", "-O1", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
TEST_CLOCK = ["-Wl,--wrap=clock_gettime", "-Wl,--wrap=nanosleep"]
"""The server's clock is the harness's."""
FUZZ_CASES = 5000

TESTS = {
    "test_server": [
        "stream_reads_across_buffers",
        "heap_refuses_bad_handles",
        "heap_says_how_much_is_missing",
        "heap_reuses_slots",
        "registry_keeps_functions_only",
        "copies_round_trip",
        "copies_out_of_bounds_are_refused",
        "copies_between_tensors",
        "connection_copies_are_checked",
        "large_blocks_live_in_the_shared_file",
        "contexts_share_tasks",
        "kernels_get_checked_tensors",
        "kernels_take_no_pointers",
        "unknown_things_are_refused",
        "malformed_packets_keep_the_stream_in_step",
        "oversized_and_truncated_packets_end_the_session",
        "other_protocols_are_refused",
        "shutdown_ends_the_session",
    ],
    "test_time_evaluator": [
        "runs_number_times_repeat",
        "short_measurements_grow",
        "cooldown_follows_every_so_many_measurements",
        "bad_settings_are_refused",
        "failing_kernels_are_reported",
        "freed_evaluators_are_gone",
    ],
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Links one of the programs here with the server, once."""
    folder = tmp_path_factory.mktemp("sanitized")
    compiler = sanitizing_compiler(folder)
    server = [path for path in server_sources() if path.name != "main.c"]
    objects = [*server, SOURCES / "harness.c"]
    compile_c(compiler, ["-c", *objects], folder)
    programs: dict[str, Path] = {}

    def compile_program(name: str) -> Path:
        if name not in programs:
            linked = [f"{path.stem}.o" for path in objects]
            compile_c(compiler, [SOURCES / f"{name}.c", *linked, *TEST_CLOCK, "-o", name], folder)
            programs[name] = folder / name
        return programs[name]

    return compile_program


def sanitizing_compiler(folder: Path) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    result = subprocess.run([compiler, *SANITIZE, empty, "-o", folder / "empty"], capture_output=True)
    if result.returncode != 0:
        pytest.skip(f"{compiler} has no address and undefined behaviour sanitizers")
    return compiler


def compile_c(compiler: str, arguments: list[str | Path], folder: Path) -> None:
    include = ["-I", str(server_sources()[0].parent), *include_flags()]
    command = [compiler, "-std=c11", *SANITIZE, *WARNINGS, *include, *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("program", "name"), [(p, name) for p, names in TESTS.items() for name in names])
def test_unit(compiled: Callable[[str], Path], program: str, name: str) -> None:
    result = subprocess.run([compiled(program), name], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("program", TESTS)
def test_no_unit_test_is_forgotten(compiled: Callable[[str], Path], program: str) -> None:
    result = subprocess.run([compiled(program), "list"], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == TESTS[program]


@pytest.mark.parametrize("seed", ["1", "2"])
def test_mutated_sessions_are_survived(compiled: Callable[[str], Path], seed: str) -> None:
    command = [compiled("fuzz_server"), seed, str(FUZZ_CASES)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{FUZZ_CASES} cases, ")
