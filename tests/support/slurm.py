"""A SLURM of this machine's own: munge, a controller and two nodes, as long as a test needs them.

Its key, sockets, ports and state are in a folder of its own; no service of the machine is touched.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.optional import STRICT, absent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")

# Each slurmd goes by an address of its own: JAX connects to the first node by its name.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
SlurmdParameters=config_overrides
KillWait=60
FirstJobId={first_job}
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.2 Port={ports[1]} CPUs=2 RealMemory=1000
NodeName=127.0.0.3 NodeHostname={host} NodeAddr=127.0.0.3 Port={ports[2]} CPUs=2 RealMemory=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Its commands, for jobs in `cwd`."""

    def __init__(self, environment, cwd):
        self.environment, self.cwd = environment, cwd

    def run(self, *command, check=True):
        """What the command prints."""
        ran = subprocess.run(
            list(map(str, command)), env=self.environment, cwd=self.cwd, text=True,
            capture_output=True, timeout=60,
        )  # fmt: skip
        if check:
            assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        return ran.stdout.strip()

    def submit(self, *arguments):
        """The number of the new job."""
        return self.run("sbatch", "--parsable", *arguments)

    def show(self, job):
        """{key: value} of the job, as JobState, RestartCnt, ExitCode."""
        words = self.run("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job):
        return self.show(job)["JobState"]


def wait_for(what, holds, seconds):
    """Waits until `holds()` gives something, and returns it."""
    found = _until(holds, seconds)
    assert found, f"not within {seconds} s: {what}"
    return found


def _until(holds, seconds):
    """What `holds()` gives once it gives something, or at the end."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


@contextlib.contextmanager
def running_slurm(folder, cwd):
    """A SLURM whose files are in `folder`; a skip where Debian's packages of it are not there.

    The test has the marker `slurm`.
    """
    missing = [name for name in PROGRAMS if not (shutil.which(name) or _in_sbin(name))]
    if os.geteuid() != 0:
        missing.append("root")
    if missing and not STRICT:
        pytest.skip(absent("slurm", f"no {', '.join(missing)}"))
    assert not missing
    folder.chmod(0o755)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = os.environ | {"PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            ports=_free_ports(3),
            first_job=1 + os.getpid() % 60_000,  # the coordinator's port is by the job's number
        )
    )
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    slurm = Slurm(environment, cwd)
    try:
        slurm.run(
            "munged", "--force", f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        slurm.run("slurmctld", "-c")
        for node in slurm.run("scontrol", "show", "hostnames", _nodes(folder)).split():
            (folder / f"spool_{node}").mkdir()
            slurm.run("slurmd", "-N", node)
        idle = lambda: slurm.run("sinfo", "-h", "-N", "-o", "%T", check=False)  # noqa: E731
        wait_for("two idle nodes", lambda: idle().split() == ["idle", "idle"], 30)
        yield slurm
    finally:
        _stop(slurm, folder)


def _nodes(folder):
    lines = (folder / "slurm.conf").read_text().splitlines()
    return ",".join(line.split()[0].split("=")[1] for line in lines if line.startswith("NodeName"))


def _in_sbin(name):
    return any((Path(folder) / name).exists() for folder in ("/usr/sbin", "/sbin"))


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _stop(slurm, folder):
    """Ends the jobs, and then the daemons by their own pid files."""
    slurm.run("scancel", "--full", "--signal=KILL", "--user=root", check=False)
    slurm.run("scancel", "--user=root", check=False)  # also those that wait for another start
    _until(lambda: not slurm.run("squeue", "-h", check=False), 30)
    files = [*folder.glob("slurm*.pid"), folder / "munged.pid"]
    pids = [int(path.read_text()) for path in files if path.exists()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_is_alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _until(lambda: not any(map(_is_alive, pids)), 20)


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
