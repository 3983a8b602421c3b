"""What an environment tells: which processes make the run, and where it is only one."""

import pytest

from deepknn_jax.engine.cluster import find_cluster
from deepknn_jax.errors import UserError

STEP = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],login1",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
ALONE = {
    "nothing": {},
    "a batch script without srun": {
        "SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "n[1-8]",
    },
    "salloc's shell, a step of one task in an allocation of eight": STEP
    | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290"},
    "srun -n1": STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
    "a notebook in a pod": {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "notebook-0"},
    "an Indexed Job of independent runs": {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3",
    },
    "JAX's variables for one, whatever else is there": STEP | {"JAX_NUM_PROCESSES": "1"},
    "mpirun -n 1 in a step": STEP | {"OMPI_COMM_WORLD_SIZE": "1"},
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_a_single_process_is_left_alone(name):
    assert find_cluster(ALONE[name], chips=False) is None


def arguments(environment):
    return find_cluster(environment, chips=False).arguments


def test_jax_s_variables_come_first_and_an_indexed_job_numbers_its_pods():
    expected = {
        "coordinator_address": "a:1", "num_processes": 2, "process_id": 1,
        "cluster_detection_method": "deactivate",
    }  # fmt: skip
    assert arguments(STEP | JAX) == expected
    pod = {key: value for key, value in JAX.items() if key != "JAX_PROCESS_ID"}
    assert arguments(pod | {"JOB_COMPLETION_INDEX": "0"}) == expected | {"process_id": 0}


@pytest.mark.parametrize("missing", ["JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"])
def test_half_an_environment_is_an_error_that_names_it(missing):
    given = {key: value for key, value in JAX.items() if key != missing}
    with pytest.raises(UserError, match=f"{' and '.join(given)} set, but .*{missing}"):
        find_cluster(given, chips=False)


def test_a_number_that_is_none():
    with pytest.raises(UserError, match=r"cannot be read .*'two'"):
        find_cluster(JAX | {"JAX_NUM_PROCESSES": "two"}, chips=False)


def test_srun_s_tasks():
    found = arguments(STEP)
    assert found["coordinator_address"] == f"gpu007:{61440 + 4100 % 4096}"
    assert (found["num_processes"], found["process_id"]) == (6, 3)
    assert found["local_device_ids"] == [1]
    other_step = arguments(STEP | {"SLURM_STEP_ID": "1"})
    assert other_step["coordinator_address"] != found["coordinator_address"]
    assert arguments(STEP | {"JAX_COORDINATOR_PORT": "77"})["coordinator_address"] == "gpu007:77"


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({"SLURM_NODEID": "2", "SLURM_LOCALID": "0"}, None),  # alone on its node: all of it
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),  # --gpus-per-task=1 gave each its own
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [4, 5, 6, 7]),
        ({"JAX_LOCAL_DEVICE_IDS": "5"}, None),  # which JAX reads
    ],
)
def test_which_gpus_of_its_host_a_task_takes(changes, devices):
    assert arguments(STEP | changes).get("local_device_ids") == devices


@pytest.mark.parametrize(("nodes", "first"), [("n1", "n1"), ("n1,m[2-3]", "n1"), ("n[04]", "n04")])
def test_the_first_node_of_a_list(nodes, first):
    assert arguments(STEP | {"SLURM_STEP_NODELIST": nodes})["coordinator_address"].startswith(
        f"{first}:"
    )


def test_mpirun_in_a_step_is_asked_before_slurm():
    ranks = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}
    found = arguments(STEP | ranks | {"JAX_COORDINATOR_ADDRESS": "h:9"})
    assert (found["num_processes"], found["process_id"]) == (4, 2)
    assert arguments(STEP | ranks | {"OMPI_MCA_orte_hnp_uri": "x"}) == {
        "cluster_detection_method": "ompi"
    }
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        find_cluster(STEP | ranks, chips=False)


@pytest.mark.parametrize(
    ("environment", "several", "uncertain"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, False),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True, False),
        ({}, True, True),  # a TPU VM: its metadata tell
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False, False),
        ({"JAX_PLATFORMS": "cpu"}, False, False),
        ({"TPU_PROCESS_BOUNDS": "1,1,1"}, False, False),
    ],
)
def test_tpu_hosts(environment, several, uncertain):
    found = find_cluster(environment, chips=True)
    assert (found is not None) == several
    assert not several or (found.arguments, found.uncertain) == ({}, uncertain)
    assert find_cluster({"TPU_WORKER_HOSTNAMES": "a,b"}, chips=False) is None
