"""Kills for want of memory are those that the kernel has counted."""

import pytest

from runners.executors.memory_kills import has_killed, memory_kills

VMSTAT = "nr_free_pages 12\noom_kill {}\npgfault 7\n"
EVENTS = "low 0\nhigh 3\nmax 9\noom {}\noom_kill {}\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"

MACHINES = {
    "a machine": {"proc/vmstat": VMSTAT},
    "a group of version 2": {
        "proc/self/cgroup": "0::/user/one",
        "sys/fs/cgroup/user/one/memory.events": EVENTS,
    },
    "a group above it": {
        "proc/self/cgroup": "0::/user/one/two",
        "sys/fs/cgroup/user/memory.events": EVENTS,
    },
    "a container that sees its own root": {
        "proc/self/cgroup": "0::/elsewhere/outside",
        "sys/fs/cgroup/memory.events": EVENTS,
    },
    "a group of version 1": {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/jobs/one\n0::/",
        "sys/fs/cgroup/memory/jobs/one/memory.oom_control": CONTROL,
    },
}


def write(root, files, kills):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{}", str(kills)))


@pytest.mark.parametrize("files", MACHINES.values(), ids=MACHINES)
def test_a_kill_is_seen_wherever_it_is_counted(tmp_path, files):
    write(tmp_path, files, 2)
    before = memory_kills(tmp_path)
    assert list(before.values()) == [2]
    assert has_killed(before, memory_kills(tmp_path)) is False
    write(tmp_path, files, 3)
    assert has_killed(before, memory_kills(tmp_path)) is True


def test_without_counters_nothing_is_known(tmp_path):
    assert memory_kills(tmp_path) == {}
    assert has_killed({}, {}) is None
    assert has_killed({"a": 1}, {"b": 2}) is None
