"""The files of launch/ against what they are for, and against what they call."""

import copy
import re
import shlex
import tomllib

import pytest
import yaml
from support.manifests import container_of, environment, faults
from support.runs import ROOT

from deepknn_jax import config as config_lib
from deepknn_jax.engine.hosts import SAVED
from deepknn_jax.shell import find_config, without_config

LAUNCH = ROOT / "launch"
JOBSETS = ("gke-jobset-gpu.yaml", "gke-jobset-tpu.yaml")


def document(name):
    return yaml.safe_load((LAUNCH / name).read_text())


@pytest.mark.launch
@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_has_no_fault(name):
    assert list(faults(document(name))) == []


SPOILT = {
    "spec.failurePolicy.maxRestart": 3,
    "spec.failurePolicy.rules.0.action": "Restart",
    "spec.failurePolicy.rules.0.name": "told to stop",
    "spec.failurePolicy.rules.0.onJobFailureReasons": ["Preempted"],
    "spec.failurePolicy.restartStrategy": "Block",
    "spec.replicatedJobs.0.template.spec.backoffLimits": 0,
    "spec.replicatedJobs.0.template.spec.backoffLimit": "none",
    "spec.replicatedJobs.0.template.spec.completions": 3,
    "spec.replicatedJobs.0.template.spec.parallelism": 3,
    "spec.replicatedJobs.0.template.spec.podFailurePolicy.rules.0.onExitCodes.containerName": "x",
    "spec.replicatedJobs.0.template.spec.template.spec.containers.0.argv": [],
    "spec.replicatedJobs.0.template.spec.template.spec.containers.0.volumeMounts.0.name": "x",
    "spec.replicatedJobs.0.template.spec.template.spec.containers.0.env.0.value": "a:1",
    "spec.replicatedJobs.0.name": "others",
    "metadata.name": "another",
    "apiVersion": "jobset.x-k8s.io/v1",
}


@pytest.mark.launch
@pytest.mark.parametrize("path", SPOILT)
def test_a_spoilt_jobset_has_one(path):
    spoilt = copy.deepcopy(document(JOBSETS[0]))
    *parents, last = path.split(".")
    place = spoilt
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = SPOILT[path]
    assert list(faults(spoilt))


@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_starts_again_what_was_told_to_stop(name):
    spec = document(name)["spec"]
    [job] = spec["replicatedJobs"]
    stopped, disrupted = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert stopped["action"] == disrupted["action"] == "FailJob"
    assert set(stopped["onExitCodes"]["values"]) == {SAVED, 128 + 15}
    [rule] = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    field = environment(container_of(document(name)))["DEEPKNN_JOB"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"


def test_skypilot_starts_again_what_was_told_to_stop():
    recovery = document("skypilot.yaml")["resources"]["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [SAVED]


@pytest.mark.parametrize("name", [*JOBSETS, "skypilot.yaml"])
def test_their_options_are_the_programs(name):
    found = document(name)
    options = (
        shlex.split(found["envs"]["OPTIONS"])
        if name == "skypilot.yaml"
        else container_of(found)["args"]
    )
    config, rest = without_config(options)
    assert find_config(config)
    keys = {option.split("=")[0].removeprefix("--config.") for option in rest}
    assert keys - {"--workdir"} <= set(config_lib.flatten(config_lib.default()))
    assert "--workdir" in keys


@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh", "skypilot.yaml", "Dockerfile"])
def test_each_calls_the_command(name):
    assert "deepknn_jax.main" in (LAUNCH / name).read_text().replace('", "', " ")


def test_the_image_is_made_of_what_is_there():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    paths = [path for paths in copied for path in paths]
    assert {"pyproject.toml", "deepknn_jax", "configs"} <= set(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= set(paths)
    extras = project["project"]["optional-dependencies"]
    named = re.search(r"^# FOR: an extra of pyproject.toml, (\w+) or (\w+)", text, re.M)
    assert {*named.groups(), "dicom"} <= set(extras)


def test_the_readme_tells_of_every_file():
    text = (LAUNCH / "README.md").read_text()
    others = [path.name for path in LAUNCH.iterdir() if path.name != "README.md"]
    assert [name for name in others if f"]({name})" not in text] == []
