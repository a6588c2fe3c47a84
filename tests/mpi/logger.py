"""A rank that does nothing but log, until it is killed so many seconds behind the first run.h5: python logger.py RUN RANK SECONDS.

Two vertices a rank, numbers as tests/test_runlog.py makes them. Every flush that is done is told in RUN.told.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import test_runlog as given

from mpiconsensus.assembly import Assembly
from mpiconsensus.logpace import LogPace
from mpiconsensus.runlog import ROOM, RankLog


def kill(made, seconds):
    """On a busy machine the process that assembles takes its time to start."""
    while not made.exists():
        time.sleep(0.02)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder, victim, seconds):
    rank, ranks = (int(os.environ[f"OMPI_COMM_WORLD_{word}"]) for word in ("RANK", "SIZE"))
    told = os.open(f"{folder}.told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    last = RankLog._make_last

    def flush(log):
        last(log)
        os.write(told, f"{rank} {log._valid[0]} {log._valid[1]}\n".encode())

    RankLog._make_last = flush
    ROOM.update(steps=64, epochs=8, network=8)  # files are outgrown on the way
    log = RankLog(Path(folder) / "log" / f"rank-{rank:04d}.h5", rank, [2 * rank, 2 * rank + 1], network=rank == 0)
    if rank == 0:
        log.describe(given.TOML, given.FACTS, given.graph(2 * ranks))
    if rank == victim:
        threading.Thread(target=kill, args=(Path(folder) / "run.h5", seconds), daemon=True).start()
    pace = LogPace(log, 0.1, Assembly(folder) if rank == 0 else None)
    for epoch in range(10**6):
        for step in range(5 * epoch, 5 * epoch + 5):
            time.sleep(0.01)
            pace.beat(lambda: None)
            given.write_steps(log, [step])
        given.write_epoch(log, epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
