"""Which processes make a run, as the environment of one of them tells.

JAX finds clusters itself (jax.distributed.initialize), but by variables that a single process in an
interactive allocation or in a pod has too, and would then wait for others for ever. Here the number
of processes of this very step counts.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax.errors import UserError

_COORDINATOR, _COUNT, _NUMBER = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
# By which a process may be kept to some of its host's GPUs.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class Cluster(NamedTuple):
    """Several processes: what told of them, and the arguments of jax.distributed.initialize.

    `uncertain`: JAX itself is to find out whether there are others.
    """

    name: str
    arguments: dict[str, Any]
    uncertain: bool = False


def find_cluster(environment: Mapping[str, str], *, chips: bool | None = None) -> Cluster | None:
    """The cluster that this process is part of; None where it is alone.

    Args:
        environment: of this process.
        chips: whether this machine has TPUs; None: look.

    Raises:
        UserError: variables that name a cluster are incomplete.
    """
    try:
        for find in (_of_variables, _of_mpi, _of_slurm):
            alone, found = find(environment)
            if alone or found:
                return found
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"the environment's numbers of processes cannot be read ({error}): mend them, or"
            " --distributed=off"
        ) from error
    if _COORDINATOR in environment or environment.get(_COUNT):
        given = [name for name in (_COORDINATOR, _COUNT, _NUMBER) if name in environment]
        raise UserError(
            f"{' and '.join(given)} set, but several processes want {_COORDINATOR}, {_COUNT} and "
            f"{_NUMBER}: set all three, or --distributed=off"
        )
    return _of_tpus(environment, _has_tpus() if chips is None else chips)


# Each of the following returns whether this process is known to be alone, and its cluster if any.
_Found = tuple[bool, Cluster | None]


def _of_variables(environment: Mapping[str, str]) -> _Found:
    """JAX's own variables; in an Indexed Job of Kubernetes the pod's index is its number."""
    count = environment.get(_COUNT, "")
    if count == "1":
        return True, None
    number = environment.get(_NUMBER) or environment.get("JOB_COMPLETION_INDEX")
    if not (count and number and environment.get(_COORDINATOR)):
        return False, None
    return False, _explicit(
        "JAX's variables", environment[_COORDINATOR], int(count), int(number), None
    )


def _of_mpi(environment: Mapping[str, str]) -> _Found:
    """Open MPI's mpirun, which may itself run in a SLURM allocation."""
    if "OMPI_COMM_WORLD_SIZE" not in environment:
        return False, None
    count = int(environment["OMPI_COMM_WORLD_SIZE"])
    if count == 1:
        return True, None
    if _COORDINATOR not in environment:
        if "OMPI_MCA_orte_hnp_uri" in environment:
            return False, Cluster("Open MPI", {"cluster_detection_method": "ompi"})
        raise UserError(
            f"mpirun started {count} processes, but does not tell where the first one runs: set "
            f"{_COORDINATOR}=HOST:PORT, or --distributed=off"
        )
    number = int(environment["OMPI_COMM_WORLD_RANK"])
    local = int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))
    here = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1))
    ids = _local_devices(environment, local, here)
    return False, _explicit("Open MPI", environment[_COORDINATOR], count, number, ids)


def _of_slurm(environment: Mapping[str, str]) -> _Found:
    """The tasks of a step that srun started.

    A batch script, and the shell of an interactive allocation, is no step or a step of one task,
    whatever SLURM_NTASKS says of the allocation.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    if not all(name in environment for name in names):
        return False, None
    job, nodes, count, number = (environment[name] for name in names)
    if count == "1":
        return False, None
    address = environment.get(_COORDINATOR)
    if not address:
        port = environment.get("JAX_COORDINATOR_PORT") or _port(
            job, environment.get("SLURM_STEP_ID", "0")
        )
        address = f"{_first_node(nodes)}:{port}"
    here = _tasks_here(
        environment.get("SLURM_STEP_TASKS_PER_NODE", count), int(environment.get("SLURM_NODEID", 0))
    )
    ids = _local_devices(environment, int(environment.get("SLURM_LOCALID", 0)), here)
    return False, _explicit("SLURM", address, int(count), int(number), ids)


def _of_tpus(environment: Mapping[str, str], chips: bool) -> Cluster | None:
    """The workers of a TPU slice, or of several: JAX knows their addresses."""
    platforms = environment.get("JAX_PLATFORMS", "")
    split = "TPU_PROCESS_BOUNDS" in environment  # one host's chips, shared out by hand
    if not chips or split or (platforms and "tpu" not in platforms):
        return None
    workers = environment.get("TPU_WORKER_HOSTNAMES") or environment.get("TPU_PROCESS_ADDRESSES")
    slices = int(environment.get("MEGASCALE_NUM_SLICES", 1))
    if workers and "," not in workers and slices == 1:
        return None
    return Cluster("TPU", {}, uncertain=not workers and slices == 1)


def _has_tpus() -> bool:
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def _explicit(
    name: str, address: str, count: int, number: int, local_devices: list[int] | None
) -> Cluster:
    arguments = {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": number,
        "cluster_detection_method": "deactivate",
    }
    return Cluster(name, arguments | ({"local_device_ids": local_devices} if local_devices else {}))


def _port(job: str, step: str) -> int:
    """Of the coordinator: another one for each of several steps of a job at a time."""
    return 61440 + (int(job) + 7 * int(step)) % 4096


def _first_node(nodes: str) -> str:
    """The first name of SLURM's list: node[001-004,7],login2 -> node001."""
    found = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    assert found is not None
    return found[1] + (found[2] or "")


def _tasks_here(tasks: str, node: int) -> int:
    """The tasks on the `node`-th node of SLURM's list: 2(x3),1 is 2, 2, 2, 1."""
    counts: list[int] = []
    for part in tasks.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        assert found is not None
        counts += [int(found[1])] * int(found[2] or 1)
    return counts[min(node, len(counts) - 1)]


def _local_devices(environment: Mapping[str, str], local: int, here: int) -> list[int] | None:
    """Which of the GPUs that it sees are this process's, where `here` processes share a host.

    None: all. So it is for a process alone on its host, and where each was given its own.
    """
    if here == 1 or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    seen = next((environment[name] for name in _VISIBLE if environment.get(name)), "")
    if not seen:
        return [local]
    visible = len(seen.split(","))
    if visible < here:
        return None
    each = visible // here
    return list(range(local * each, (local + 1) * each))
