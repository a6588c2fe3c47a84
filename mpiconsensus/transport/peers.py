"""The other ranks of the node as processes: a rank that waits sees that one has died, and says which."""

import os

from mpiconsensus.errors import TrainingError


class Peers:
    """Processes of the ranks of this node, by rank of the world; collective to make. when: of a death, in words."""

    def __init__(self, world, when="in the middle of a round"):
        told = world.node_comm.allgather((world.rank, os.getpid(), _started(os.getpid())))
        # Ranks in containers of their own do not see each other's processes: those are not watched.
        self._processes = {rank: (pid, born) for rank, pid, born in told if born is not None and _started(pid) == born}
        self._hosts, self._when = world.hosts, when

    def check(self, ranks):
        """Raise TrainingError when one of `ranks` has ended; those on other nodes are the launcher's to watch."""
        for rank in ranks:
            if rank in self._processes:
                pid, born = self._processes[rank]
                if _started(pid) != born:
                    raise TrainingError(
                        f"rank {rank} (process {pid} on {self._hosts[rank]}) died {self._when}; the run ends here. "
                        "Look for its last message above, or for the out-of-memory killer (dmesg)."
                    )


def _started(pid):
    """Return when a process started, in clock ticks; None when it has ended or cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
