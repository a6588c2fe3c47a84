"""What the kernel lets this process use: cores by affinity and by a container's quota, and memory."""

import os
from pathlib import Path


def usable_cores():
    """Return how many cores this process may use: its affinity, cut to the quota of its control group."""
    quota = cgroup_cores()
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, int(quota or cores)))


def cgroup_cores(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Return the CPU quota of this process's control group and those above it, in cores, or None."""
    limits = []
    for directory in _cgroups("cpu", root, own):
        quota, period = (words(directory / "cpu.max") + ["", ""])[:2]
        quota = quota or "".join(words(directory / "cpu.cfs_quota_us"))
        period = period or "".join(words(directory / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory():
    """Return the bytes of memory that this process may use: those of the machine, cut to the limits of its control group."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *cgroup_memory()])


def cgroup_memory(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Return the memory limits in bytes of this process's control group and those above it."""
    found = []
    for directory in _cgroups("memory", root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            found += words(directory / name)
    return [int(word) for word in found if word.isdigit()]


def _cgroups(controller, root, own):
    """Yield the directories of this process's control group and of its parents, version 2 and 1."""
    for line in Path(own).read_text().splitlines() if Path(own).exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = Path(root, controller) if controllers else Path(root)
            group = top / path.strip("/")
            yield from (d for d in (group, *group.parents) if d.is_relative_to(top))


def physical_cores(cpus):
    """Return how many cores the logical `cpus` lie on; hyperthreads share one."""
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({" ".join(words(topology.format(cpu))) or cpu for cpu in cpus})


def words(path):
    """Return the words of a file; none where it cannot be read."""
    try:
        return Path(path).read_text().split()
    except OSError:
        return []
