"""CPUs of the process and of NUMA nodes. The kernel's description of other machines is made up."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aws_io_async.event_loop import _cpu

can_pin = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this platform cannot pin threads to CPUs"
)


@pytest.fixture
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)  # is looked for only


def machine(root: Path, nodes: dict[int, str], siblings: dict[str, str]) -> Path:
    """A tree like the kernel's; `siblings` from CPU lists to what each of their CPUs has."""
    for number, cpus in nodes.items():
        node = root / "node" / f"node{number}"
        node.mkdir(parents=True)
        (node / "cpulist").write_text(cpus + "\n")
    (root / "node").mkdir(exist_ok=True)
    (root / "node" / "online").write_text("0-1\n")  # as there are other entries, too
    for cpus, text in siblings.items():
        for cpu in cpus.split(","):
            topology = root / "cpu" / f"cpu{cpu}" / "topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(text + "\n")
    return root


@pytest.mark.usefixtures("sixteen_cpus")
class TestCpusOfGroup:
    def test_two_nodes(self, tmp_path: Path) -> None:
        root = machine(tmp_path, {0: "0-3", 1: "4-7"}, {})
        assert _cpu.cpus_of_group(0, root) == [0, 1, 2, 3]
        assert _cpu.cpus_of_group(1, root) == [4, 5, 6, 7]

    def test_one_hardware_thread_of_each_core(self, tmp_path: Path) -> None:
        """Siblings are far apart on some machines and neighbours on others."""
        root = machine(tmp_path, {0: "0-1,8-9", 1: "2-3"}, {"0,8": "0,8", "1,9": "1,9"})
        assert _cpu.cpus_of_group(0, root) == [0, 1]
        (tmp_path / "other").mkdir()
        root = machine(tmp_path / "other", {0: "0-3"}, {"0,1": "0-1", "2,3": "2-3"})
        assert _cpu.cpus_of_group(0, root) == [0, 2]

    def test_only_what_the_process_may_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = machine(tmp_path, {0: "0-3", 1: "4-7"}, {"0,2": "0,2", "1,3": "1,3"})
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2})
        assert _cpu.cpus_of_group(0, root) == [1, 2]  # 2 in place of its sibling
        with pytest.raises(ValueError, match="CPU group 1 has no CPU that this process may use"):
            _cpu.cpus_of_group(1, root)

    def test_a_node_that_is_memory_only(self, tmp_path: Path) -> None:
        root = machine(tmp_path, {0: "0-3", 1: ""}, {})
        with pytest.raises(ValueError, match="CPU group 1 has no CPU"):
            _cpu.cpus_of_group(1, root)

    def test_no_such_node(self, tmp_path: Path) -> None:
        root = machine(tmp_path, {0: "0-3", 10: "4-7"}, {})
        with pytest.raises(ValueError, match="no CPU group 2: this machine has 0, 10"):
            _cpu.cpus_of_group(2, root)

    def test_a_kernel_without_numa_has_one_group(self, tmp_path: Path) -> None:
        assert _cpu.cpus_of_group(0, tmp_path) == list(range(16))
        with pytest.raises(ValueError, match="no CPU group 1: this machine has 0"):
            _cpu.cpus_of_group(1, tmp_path)


def test_where_threads_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(NotImplementedError, match="without cpu_group"):
        _cpu.cpus_of_group(0)


@can_pin
def test_the_count_is_that_of_the_cpus_the_process_may_use() -> None:
    assert _cpu.usable_cpu_count() == len(os.sched_getaffinity(0))
    program = (
        "import os\n"
        "from aws_io_async.event_loop._cpu import usable_cpu_count\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "assert usable_cpu_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@can_pin
def test_pinning_is_for_one_thread_only() -> None:
    before = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    def pinned() -> None:
        _cpu.pin_this_thread(max(before))
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert seen == [{max(before)}]
    assert os.sched_getaffinity(0) == before
