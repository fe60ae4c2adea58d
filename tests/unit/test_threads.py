"""How many threads compute, and on which processors."""

from __future__ import annotations

import errno
import os
import platform
import sys
from pathlib import Path

import pytest

from edgec.errors import ToolchainError, UsageError
from edgec.runtime import threads
from edgec.runtime.amx import permit_amx
from edgec.runtime.limits import available_memory, cpu_quota
from edgec.runtime.threads import Team, choose_team, set_threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def siblings(*groups: str) -> dict[str, str]:
    named = {}
    for group in groups:
        first, _, last = group.partition("-")
        for cpu in range(int(first), int(last or first) + 1):
            named[f"system/cpu/cpu{cpu}/topology/thread_siblings_list"] = group + "\n"
    return named


def capacities(*values: int) -> dict[str, str]:
    return {f"system/cpu/cpu{cpu}/cpu_capacity": f"{v}\n" for cpu, v in enumerate(values)}


@pytest.mark.parametrize(
    ("files", "cpus", "quota", "expected"),
    [
        ({}, 4, None, Team((0, 1, 2, 3), 4)),
        (siblings("0-1", "2-3"), 4, None, Team((0, 1, 2, 3), 2)),
        (siblings("0", "1"), 2, None, Team((0, 1), 2)),
        ({}, 8, 2.5, Team(tuple(range(8)), 2)),
        ({}, 8, 0.5, Team(tuple(range(8)), 1)),
        # Intel: two fast cores with two threads each, four small ones.
        (
            {"cpu_core/cpus": "0-3\n", **siblings("0-1", "2-3", "4", "5", "6", "7")},
            8,
            None,
            Team((0, 1, 2, 3), 2),
        ),
        # Arm: one, three and four cores of a kind.
        (capacities(325, 325, 325, 325, 870, 870, 870, 1024), 8, None, Team((4, 5, 6, 7), 4)),
        # Many cores that are hardly slower are worth taking.
        (capacities(1024, 1024, 800, 800), 4, None, Team((0, 1, 2, 3), 4)),
    ],
)
def test_team(
    tmp_path: Path, files: dict[str, str], cpus: int, quota: float | None, expected: Team
) -> None:
    assert choose_team(list(range(cpus)), quota, write(tmp_path, files)) == expected


def test_small_cores_are_used_where_a_process_has_no_others(tmp_path: Path) -> None:
    system = write(tmp_path, {"cpu_core/cpus": "0-3\n"})
    assert choose_team([4, 5], None, system) == Team((4, 5), 2)


def test_the_number_is_told_to_tvm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *call: placed.append(call))
    monkeypatch.setattr(threads, "allowed_cpus", lambda: [3, 5, 7])
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.delenv("TVM_BIND_THREADS", raising=False)
    monkeypatch.setattr(threads, "choose_team", lambda *_: Team((3, 5), 2))
    assert set_threads() == 2
    assert os.environ["TVM_NUM_THREADS"] == "2"
    assert os.environ["TVM_BIND_THREADS"] == "0"
    assert placed == [(0, (3, 5))]
    monkeypatch.setenv("TVM_BIND_THREADS", "1")
    assert set_threads() == 2
    assert set_threads(7) == 7
    assert os.environ["TVM_BIND_THREADS"] == "1"
    assert len(placed) == 1, "threads that were asked for run anywhere"
    monkeypatch.setenv("TVM_NUM_THREADS", "two")
    with pytest.raises(UsageError, match=r"TVM_NUM_THREADS.*not a positive whole number"):
        set_threads()


def test_quotas_of_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    group = "sys/fs/cgroup/a/b"
    files = {"proc/self/cgroup": "0::/a/b\n", f"{group}/cpu.max": "max 100000\n"}
    assert cpu_quota(write(tmp_path, files)) is None
    # The group above it limits it as well.
    assert cpu_quota(write(tmp_path, {"sys/fs/cgroup/a/cpu.max": "250000 100000\n"})) == 2.5
    assert cpu_quota(write(tmp_path, {f"{group}/cpu.max": "150000 100000\n"})) == 1.5


def test_quotas_of_the_first_version(tmp_path: Path) -> None:
    # Inside of a container the path is that of the machine; its own limit lies at the top.
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/123\n4:memory:/docker/123\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == 0.5
    assert cpu_quota(write(tmp_path, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"})) is None


def test_available_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 1 << 60
    files = {"proc/meminfo": "MemFree:  10 kB\nMemAvailable:    5000 kB\n"}
    assert available_memory(write(tmp_path, files)) == 5000 << 10
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000000\n",
        "sys/fs/cgroup/memory.current": "900000\n",
        "sys/fs/cgroup/memory.stat": "anon 500000\nfile 300000\n",
    }
    assert available_memory(write(tmp_path, files)) == 400_000
    assert available_memory(write(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})) == 5000 << 10


AMX = ["avx512_bf16", "amx_tile", "amx_int8"]


def test_amx_is_asked_for_where_it_is_needed() -> None:
    calls = []

    def call(*arguments: int) -> int:
        calls.append(arguments)
        return 0

    permit_amx(Path("model.so"), ["avx512_bf16"], system="linux", call=call)
    permit_amx(Path("model.so"), AMX, system="darwin", call=call)
    assert calls == []
    permit_amx(Path("model.so"), AMX, system="linux", call=call)
    assert calls == [(158, 0x1023, 18)]


@pytest.mark.parametrize(
    ("failed", "remedy"), [(errno.EINVAL, "Linux 5.16"), (errno.ENOSPC, "alternate signal stack")]
)
def test_a_kernel_that_refuses_amx_is_an_error(failed: int, remedy: str) -> None:
    with pytest.raises(ToolchainError, match=r"model\.so.*AMX tiles") as caught:
        permit_amx(Path("model.so"), AMX, system="linux", call=lambda *_: failed)
    assert remedy in caught.value.remedy


@pytest.mark.skipif(sys.platform != "linux", reason="AMX and control groups are of Linux")
def test_this_machine_answers() -> None:
    assert 1 <= threads.usable_cpus() <= (os.cpu_count() or 1)
    assert available_memory() > 1 << 20
    if platform.machine() != "x86_64":
        return
    if " amx_tile" not in Path("/proc/cpuinfo").read_text():
        with pytest.raises(ToolchainError, match="AMX tiles"):
            permit_amx(Path("model.so"), AMX)
    else:
        permit_amx(Path("model.so"), AMX)
