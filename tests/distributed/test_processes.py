"""Which process of which run this is, by what launchers say; nothing is joined."""

import os
import pathlib
import re

import jax
import pytest
import yaml
from jax._src.clusters import cloud_tpu_cluster, k8s_cluster

from cnnjax import cli
from cnnjax.distributed import processes
from cnnjax.distributed.processes import Process
from cnnjax.errors import InputError

JOBS = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "jobs"

SLURM_JOB = {"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SLURM_STEP = SLURM_JOB | {"SLURM_STEP_NODELIST": "node[007-008],other1", "SLURM_STEP_NUM_TASKS": "4"}
SRUN = SLURM_STEP | {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
MPI4 = MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
TPU = {"TPU_SKIP_MDS_QUERY": "true", "TPU_WORKER_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
       "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"}  # fmt: skip
GIVEN = {"JAX_COORDINATOR_ADDRESS": "host0:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}


def mpi() -> Process:
    return Process("10.96.0.1:62624", 2, 1, [1], "Open MPI")


def given(devices: list[int] | None = None) -> Process:
    return Process("host0:1234", 4, 2, devices, "JAX_COORDINATOR_ADDRESS")


FOUND = {
    "nothing": ({}, None),
    "srun": (SRUN, Process("node007:62016", 4, 3, [1], "Slurm")),
    "srun with GPUs": (SRUN | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, Process("node007:62016", 4, 3, [2, 3], "Slurm")),
    "srun with a port": (SRUN | {"JAX_COORDINATOR_PORT": "7777"}, Process("node007:7777", 4, 3, [1], "Slurm")),
    "srun of one": (SLURM_STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, None),
    "salloc's own step": (SLURM_STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    "sbatch without srun": (SLURM_JOB, None),
    "srun of runs alone": (SRUN | {"JAX_NUM_PROCESSES": "1"}, None),
    "mpirun": (MPI4, mpi()),
    "mpirun in Slurm": (MPI4 | SLURM_STEP | {"SLURM_STEP_NUM_TASKS": "1"}, mpi()),
    "mpirun of one": (MPI4 | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    "a pod": (POD, None),
    "a TPU slice": (
        TPU | {"TPU_WORKER_HOSTNAMES": "localhost,host1"},
        Process("localhost:8482", 2, 1, None, processes.TPU),
    ),
    "a TPU host": (TPU | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
    "given": (GIVEN, given()),
    "given with GPUs": (GIVEN | {"JAX_LOCAL_DEVICE_IDS": "5"}, given([5])),
    "given in Slurm": (GIVEN | SRUN, given()),
    "given in a pod": (GIVEN | POD | {"JOB_COMPLETION_INDEX": "2"}, given()),
    "given as one": (GIVEN | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
}

WRONG = {
    "no number": (
        {"JAX_COORDINATOR_ADDRESS": "host0:1", "JAX_NUM_PROCESSES": "2"},
        "JAX_COORDINATOR_ADDRESS is set, but JAX_PROCESS_ID is not: ",
    ),
    "no address": ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID is set, but JAX_COORDINATOR_ADDRESS is not: "),
    "no count": (GIVEN | {"JAX_NUM_PROCESSES": ""}, "JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES is not: "),
    "no port": (GIVEN | {"JAX_COORDINATOR_ADDRESS": "host0"}, "=host0: expected the HOST:PORT of process 0, as in "),
    "count": (GIVEN | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: expected a whole number, at least 1"),
    "number": (GIVEN | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4: expected 0 to 3, as JAX_NUM_PROCESSES=4"),
    "devices": (GIVEN | {"JAX_LOCAL_DEVICE_IDS": "a"}, "JAX_LOCAL_DEVICE_IDS=a: expected device indices"),
    "Open MPI 5": (MPI, "Open MPI.*; set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or "),
    "an indexed Job": (
        POD | {"JOB_COMPLETION_INDEX": "1"},
        "JOB_COMPLETION_INDEX is set by Kubernetes, but JAX cannot find the other processes; set JAX_",
    ),
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """Sets the environment to that of this machine, without launchers, and these variables."""

    def set_to(variables: dict[str, str]) -> None:
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JOB_", "TPU_", "JAX_LOCAL_")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        if "TPU_WORKER_ID" in variables:
            monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)

    return set_to


@pytest.mark.parametrize("case", FOUND)
def test_a_process_knows_its_run(case: str, environment, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, expected = FOUND[case]
    environment(variables)
    assert processes.detect() == expected
    joined: list[tuple] = []
    monkeypatch.setattr(processes, "_guard", lambda name: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: joined.append(args))
    processes.initialize()
    assert joined == ([(expected.coordinator, expected.count, expected.index, expected.devices)] if expected else [])


@pytest.mark.parametrize("case", WRONG)
def test_a_run_that_is_half_said_is_one_line(case: str, environment, capsys: pytest.CaptureFixture[str]) -> None:
    variables, message = WRONG[case]
    environment(variables)
    with pytest.raises(InputError, match=message):
        processes.initialize()
    assert cli.main(["--dry-run", "train"]) == 1
    err = capsys.readouterr().err
    assert re.match(f"error: .*{message}", err)
    assert err.count("\n") == 1


def test_only_a_pod_of_an_indexed_job_asks_the_cluster(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(cls: type) -> bool:
        raise RuntimeError("403 - Forbidden")

    monkeypatch.setattr(k8s_cluster.K8sCluster, "is_env_present", classmethod(forbidden))
    environment(POD)
    assert processes.detect() is None
    environment(POD | {"JOB_COMPLETION_INDEX": "0"})
    with pytest.raises(InputError, match=r"^cannot query Kubernetes for the other processes: 403 - Forbidden; set "):
        processes.detect()


def test_a_cluster_that_does_not_answer_is_one_line(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(cls: type) -> bool:
        raise ConnectionError("no route\nand a page of reasons")

    environment({})
    monkeypatch.setattr(cloud_tpu_cluster.GceTpuCluster, "is_env_present", classmethod(unreachable))
    with pytest.raises(InputError, match=r"^cannot query the TPU's metadata for the other processes: no route; set "):
        processes.initialize()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, r"one process, alone, all devices: .*cnnjax train '--config=a b\.py'"),
        (SRUN, r"process 3 of 4, by Slurm, coordinator node007:62016, devices 1: .*"),
        (GIVEN, "process 2 of 4, .*, all devices: .*JAX_COORDINATOR_ADDRESS=host0:1234 .*JAX_PROCESS_ID=2 .*train.*"),
    ],
)
def test_a_dry_run_says_what_a_process_would_be(
    variables: dict[str, str], says: str, environment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(variables)
    assert cli.main(["--dry-run", "train", "--config=a b.py"]) == 0
    out = capsys.readouterr().out
    assert re.match(f"[^ ]+: {says}", out)
    assert out.count("\n") == 1


def test_the_example_for_kubernetes_says_who_its_pods_are() -> None:
    job = yaml.safe_load((JOBS / "jobset.yaml").read_text())
    (replicated,) = job["spec"]["replicatedJobs"]
    indexed = replicated["template"]["spec"]
    (container,) = indexed["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert tuple(env) == processes.VARIABLES
    name, port = job["metadata"]["name"], container["ports"][0]["containerPort"]
    assert env["JAX_COORDINATOR_ADDRESS"] == f"{name}-{replicated['name']}-0-0.{name}:{port}"
    assert env["JAX_NUM_PROCESSES"] == str(indexed["parallelism"]) == str(indexed["completions"])
