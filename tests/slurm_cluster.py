"""A Slurm of this machine's own, for tests: a controller and nodes that are pretended, each with a host name, /dev/shm and process table.

    python tests/slurm_cluster.py DIRECTORY     bring it up, say how to use it, end it at Ctrl-C

Needs root, and slurmctld, slurmd, the Slurm commands and munge (`PACKAGES`). No daemon leaves this process: they are its children,
which the kernel ends with it, and nodes are process namespaces, which take their ranks along. The installed configuration is not touched.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged", "unshare", "setpriv")
NODES = ("n1", "n2", "n3", "n4")
PATIENCE_S = 180

CONF = """\
ClusterName=pretended
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n/slurmd.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/%n
TmpFS={root}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=10
MinJobAge=600
"""


def missing():
    """Return why there can be no cluster here, or ''."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"no {', '.join(absent)} on the PATH: apt-get install {' '.join(PACKAGES)}"
    if os.getuid():
        return "pretended nodes need root"
    tried = subprocess.run(["unshare", "--uts", "--mount", "--pid", "--fork", "hostname", "n1"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "no namespaces for pretended nodes here (unshare is refused)"


def free_ports(count):
    """Return port numbers that nobody listens on."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


class Cluster:
    """The daemons, as a context. `environment`: what Slurm's commands need."""

    def __init__(self, root, cpus=16):
        self.root, self.cpus, self.children, self.off = Path(root), cpus, {}, set()
        self.environment = {"SLURM_CONF": str(self.root / "slurm.conf"), "TMPDIR": str(self.root / "tmp")}

    def __enter__(self):
        try:
            self._configure()
            self._start("munged", "munged", "--foreground", "--force", f"--key-file={self.root}/munge.key",
                        f"--socket={self.root}/munge.socket", f"--pid-file={self.root}/munged.pid",
                        f"--log-file={self.root}/munged.log", f"--seed-file={self.root}/munge.seed")  # fmt: skip
            self.wait_for((self.root / "munge.socket").exists, "munge's socket")
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in NODES:
                self.start_node(node)
            self.wait_for(lambda: self.nodes("idle") == set(NODES), "idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # As when the power goes: a namespace takes all of its processes along, and no state is wanted.
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait()

    def power_off(self, node):
        """End everything on a node at once, and tell the controller, which would notice by itself after SlurmdTimeout."""
        self.off.add(node)
        self.children[node].kill()
        self.children[node].wait()
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def start_node(self, node):
        """Start a node: namespaces with a first process that collects orphans, as init does, and slurmd.

        Temporary files go when its power does: process numbers come again, and mpirun names its folders after them.
        """
        inside = f"""
            hostname {node} && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs {self.root}/tmp && mount --bind {self.root}/hosts /etc/hosts
            slurmd -D -N {node} & wait
        """
        own = ["--uts", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]
        self.off.discard(node)
        self._start(node, "unshare", *own, "bash", "-c", inside)

    def call(self, *words, check=True, cwd=None, **changes):
        """Run a Slurm command; return what it printed."""
        foreign = ("SLURM_", "SBATCH_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | self.environment | changes
        done = subprocess.run([str(w) for w in words], env=env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def nodes(self, state):
        return set(self.call("sinfo", "-h", "-N", "-p", "main", "-t", state, "-o", "%N", check=False).split())

    def job(self, number):
        """Return what the controller knows of a job: {field: value}."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, holds, what):
        """Return holds() when it is true; AssertionError with the daemons' last words where one has ended or PATIENCE_S is over."""
        end = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            gone = [name for name, child in self.children.items() if child.poll() is not None and name not in self.off]
            assert not gone and time.monotonic() < end, f"waited for {what}; daemons that ended: {gone}\n{self.logs()}"
            time.sleep(0.1)
        return found

    def logs(self):
        return "\n".join("".join(path.open(errors="replace").readlines()[-12:]) for path in sorted(self.root.glob("*.log")))

    def _configure(self):
        for name in ("state", "tmp", *NODES):
            (self.root / name).mkdir(parents=True)
        key = self.root / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(64))
        ports = free_ports(1 + len(NODES))
        host, names = socket.gethostname().partition(".")[0], ",".join(NODES)
        lines = [CONF.format(host=host, root=self.root, port=ports.pop())]
        for node in NODES:
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports.pop()} CPUs={self.cpus} RealMemory=1000\n")
        lines.append(f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE PriorityTier=1\n")
        lines.append(f"PartitionName=warned Nodes={names} MaxTime=INFINITE PriorityTier=1 GraceTime=60\n")
        lines.append(f"PartitionName=high Nodes={names} MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF\n")
        (self.root / "slurm.conf").write_text("".join(lines))
        (self.root / "hosts").write_text(Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 {node}\n" for node in NODES))

    def _start(self, name, *words):
        with (self.root / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],
                env={k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))} | self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


def main(root):
    """Bring a cluster up and keep it until a signal comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if why := missing():
        sys.exit(f"slurm_cluster.py: {why}")
    with Cluster(Path(root).resolve()) as cluster:
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
