"""A SLURM of two nodes on this machine: its own configuration, key and daemons, below one folder, ended after use."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
PLACES = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NODES = "127.0.0.[1-2]"
"""Names that every machine finds: a job meets its first node by name, and both are this one."""

CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={nodes} NodeAddr={nodes} Port=[{ports[1]}-{ports[2]}] CPUs=32 Gres=gpu:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""Nodes say that they have what the job file asks for; a GPU is a device that nobody opens."""


def missing() -> list[str]:
    """Programs of SLURM that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The variables under which commands find a running cluster. `folder` has a short path, for the socket."""
    (folder / "state").mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/tty[1-8]\n")
    about = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "nodes": NODES}
    configuration = CONFIGURATION.format(folder=folder, ports=_free_ports(), **about)
    (folder / "slurm.conf").write_text(configuration)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": PLACES}
    munge = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("key-file", "log-file", "pid-file", "seed-file")
    ]
    with contextlib.ExitStack() as stack:

        def start(*command: str) -> None:
            with (folder / f"{command[0]}.out").open("a") as out:
                program = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            stack.callback(program.wait, 60)
            stack.callback(program.terminate)

        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        _until(lambda: (folder / "munge.socket").exists(), "munged", folder)
        start("slurmctld", "-D")
        for node in ("127.0.0.1", "127.0.0.2"):
            start("slurmd", "-D", "-N", node)

        def idle() -> bool:
            told = subprocess.run(["sinfo", "-h", "-o", "%t %D"], env=environment, capture_output=True, text=True)
            return told.stdout.split() == ["idle", "2"]

        _until(idle, "the nodes", folder)
        yield environment


def _free_ports() -> list[int]:
    """Three free ports, the last two in a row."""
    for port in range(26_800, 32_000, 3):
        with contextlib.ExitStack() as stack:
            try:
                for each in range(port, port + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
            return [port, port + 1, port + 2]
    raise AssertionError("no three free ports in a row")


def _until(ready, what: str, folder: Path) -> None:
    for _ in range(120):
        if ready():
            return
        time.sleep(0.5)
    told = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("*.out")))
    raise AssertionError(f"{what} did not come up within a minute\n{told}")
