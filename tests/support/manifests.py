"""What is wrong with a manifest, without a cluster: Kubernetes' schemas, JobSet's own keys."""

import re
from collections.abc import Iterator

from support.optional import require

# jobset.x-k8s.io/v1alpha2, which kubernetes-validate does not know.
JOBSET = {
    "coordinator", "failurePolicy", "managedBy", "network", "replicatedJobs", "startupPolicy",
    "successPolicy", "suspend", "ttlSecondsAfterFinished", "volumeClaimPolicies",
}  # fmt: skip
POLICY = {"maxRestarts", "restartStrategy", "rules"}
RULE = {"action", "name", "onJobFailureReasons", "onJobFailureMessagePatterns",
        "targetReplicatedJobs"}  # fmt: skip
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
REASONS = {
    "BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
}  # fmt: skip
REPLICATED = {"dependsOn", "groupName", "name", "replicas", "template"}
RULE_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def container_of(jobset: dict) -> dict:
    """The only container of a JobSet with one replicated job."""
    [job] = jobset["spec"]["replicatedJobs"]
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    return container


def environment(container: dict) -> dict:
    """{name: value, or where it is from} of its variables."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def faults(jobset: dict) -> Iterator[str]:
    """A line for each."""
    kubernetes_validate = require("kubernetes_validate")
    if (jobset.get("apiVersion"), jobset.get("kind")) != ("jobset.x-k8s.io/v1alpha2", "JobSet"):
        yield f"{jobset.get('apiVersion')} {jobset.get('kind')} is no JobSet"
        return
    spec = jobset["spec"]
    yield from _unknown("spec", spec, JOBSET)
    policy = spec.get("failurePolicy", {})
    yield from _unknown("failurePolicy", policy, POLICY)
    if policy.get("restartStrategy", "Recreate") not in ("Recreate", "BlockingRecreate"):
        yield f"restartStrategy {policy['restartStrategy']}"
    for rule in policy.get("rules", []):
        yield from _unknown("rule", rule, RULE)
        if not RULE_NAME.fullmatch(rule.get("name", "")):
            yield f"a rule's name: {rule.get('name')}"
        if rule.get("action") not in ACTIONS:
            yield f"action {rule.get('action')}"
        yield from _unknown("reasons", rule.get("onJobFailureReasons", []), REASONS)
    for job in spec["replicatedJobs"]:
        yield from _unknown("replicated job", job, REPLICATED)
        yield from _job_faults(kubernetes_validate, jobset["metadata"]["name"], job)


def _unknown(where, found, known):
    if unknown := set(found) - known:
        yield f"{where}: unknown {', '.join(sorted(unknown))}"


def _job_faults(kubernetes_validate, name, replicated):
    """Of the Job in it: by its schema, and what must agree."""
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": replicated["name"]}}
    job |= replicated["template"]
    try:
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
        return
    spec = job["spec"]
    [container] = spec["template"]["spec"]["containers"]
    variables = environment(container)
    if spec["parallelism"] != spec["completions"]:
        yield "parallelism and completions differ: not all run at once"
    if "JAX_NUM_PROCESSES" in variables:
        if variables["JAX_NUM_PROCESSES"] != str(replicated["replicas"] * spec["parallelism"]):
            yield "JAX_NUM_PROCESSES is not the number of pods"
        first = f"{name}-{replicated['name']}-0-0.{name}:"
        if not variables["JAX_COORDINATOR_ADDRESS"].startswith(first):
            yield f"JAX_COORDINATOR_ADDRESS is not of pod {first}"
    for rule in spec["podFailurePolicy"]["rules"]:
        if rule.get("onExitCodes", {}).get("containerName", "train") != container["name"]:
            yield "podFailurePolicy is of another container"
    volumes = {volume["name"] for volume in spec["template"]["spec"].get("volumes", [])}
    yield from _unknown("mounts", (m["name"] for m in container["volumeMounts"]), volumes)
