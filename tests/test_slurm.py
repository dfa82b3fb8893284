"""launcher=slurm through submitit: on this machine, and on a real Slurm where its programs can be started."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import error_of, long, petl, quickly, rows_of
from tests.engines import COUNT, PATIENCE, SWEEP, assert_same, at_work, finish, first_at_work, refusal, start
from tests.processes import NESTED, session_processes, wait_until

pytest.importorskip("submitit", reason="submitit is not installed")

COMMON = ["launcher=slurm", "launcher.device=cpu", "launcher.runs_per_job=2", "launcher.heartbeat=1"]
HERE = [*COMMON, "launcher.cluster=local", "launcher.jobs=2"]


# submitit's executor on this machine


def test_a_job_killed_and_a_job_preempted(tmp_path: Path, engine_reference: Path) -> None:
    store = tmp_path / "store"
    with start(store, *HERE, **{NESTED: "begin"}) as process:
        run_id, worker = first_at_work(store)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: at_work(store).keys() - {run_id}, PATIENCE)
        other = next(number for name, number in at_work(store).items() if name != run_id)
        os.kill(other, signal.SIGUSR2)  # what Slurm sends before it takes a machine away
        messages = finish(process)
    assert "tried again" in messages
    assert "ended without a result" in messages
    assert any("Requeued job" in log.read_text() for log in store.glob(".jobs/*_log.out"))
    assert_same(store, engine_reference)
    wait_until(lambda: not session_processes(process.pid), PATIENCE)


@long
def test_ctrl_c_cancels_the_jobs(tmp_path: Path) -> None:
    with start(tmp_path / "store", *HERE) as process:
        first_at_work(tmp_path / "store")
        process.send_signal(signal.SIGINT)  # to the sweep alone, as where jobs are on other machines
        _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert " cancelled" in messages
    assert "petl_bench/" not in messages  # no traceback of ours; submitit's stand-in shows where it was
    wait_until(lambda: not session_processes(process.pid), PATIENCE)
    assert len(rows_of(tmp_path / "store")) < COUNT


def test_submitit_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    message = refusal(quickly("sweep", "--store", tmp_path / "s", *SWEEP, *HERE))
    assert "pip install 'petl-bench[slurm]'" in message


def test_no_slurm_here(tmp_path: Path) -> None:
    message = refusal(quickly("sweep", "--store", tmp_path / "s", *SWEEP, *COMMON, PATH=str(tmp_path)))
    assert "launcher.cluster=local" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("launcher.gpus=0.5", "launcher.gpus=0.5"),
        ("launcher.cluster=lokal", "one of slurm, local"),
        ("launcher.runs_per_job=0", "at least 1, at most 100,000"),
        ("launcher.address=auto", "launcher=ray"),
        ("precision=auto", "precision=bf16"),
    ],
)
@pytest.mark.sampled(2)
def test_mistakes(tmp_path: Path, override: str, said: str) -> None:
    assert said in error_of(quickly("sweep", "--store", tmp_path / "s", *SWEEP, "launcher=slurm", override))


# A real Slurm of one machine

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
KillWait=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=n1 Default=YES MaxTime=600 State=UP
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which a Slurm of this machine alone answers; skips where none can be started."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
    programs = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd", "sbatch")}
    if missing := [name for name, place in programs.items() if place is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        facts = {"host": platform.node().partition(".")[0], "user": getpass.getuser(), "ports": free_ports(2)}
        configuration = folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, **facts))
        places = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munge.log"}
        places |= {"pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={folder / file}" for option, file in places.items()]
        commands = [
            ["munged", "--foreground", "--force", *options],
            ["slurmctld", "-D", "-f", str(configuration)],
            ["slurmd", "-D", "-N", "n1", "-f", str(configuration)],
        ]
        environment = {"SLURM_CONF": str(configuration)}
        for program, *arguments in commands:
            daemon = subprocess.Popen(
                [programs[program], *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | environment,
            )
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        try:
            wait_until(lambda: "idle" in ask(environment, "sinfo", "--noheader"), 30)
        except AssertionError:
            logs = "".join(log.read_text()[-500:] for log in folder.glob("*.log"))
            pytest.skip(f"Slurm does not start here: {logs}")
        yield environment
        ask(environment, "scancel", "--me")
        wait_until(lambda: not ask(environment, "squeue", "--noheader"), PATIENCE)


def ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def job_of(slurm: dict[str, str], process: int) -> str:
    """The task of an array that a process belongs to: its own number may be that of the whole array."""
    names = dict(line.split() for line in ask(slurm, "squeue", "--noheader", "--format=%A %i").splitlines())
    for line in ask(slurm, "scontrol", "listpids").splitlines()[1:]:
        found, job, *_ = line.split()
        if int(found) == process:
            return names[job]
    raise AssertionError(f"process {process} is in no job")


@long
def test_a_job_killed_and_a_job_queued_again_by_slurm(
    slurm: dict[str, str], tmp_path: Path, engine_reference: Path
) -> None:
    store = tmp_path / "store"
    with start(store, *COMMON, **slurm) as process:
        run_id, worker = first_at_work(store)
        os.kill(worker, signal.SIGKILL)  # as the kernel does where memory is short
        wait_until(lambda: at_work(store).keys() - {run_id}, PATIENCE)
        other = next(number for name, number in at_work(store).items() if name != run_id)
        job = job_of(slurm, other)
        ask(slurm, "scontrol", "requeue", job)
        state = ("squeue", "--noheader", "--format=%T", f"--jobs={job}")
        wait_until(lambda: "PENDING" in ask(slurm, *state) or process.poll() is not None, PATIENCE)
        ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")  # else it waits two minutes
        messages = finish(process)
    assert "JobState=FAILED" in messages, messages
    assert "tried again" in messages
    assert_same(store, engine_reference)


@long
def test_ctrl_c_cancels_what_slurm_has(slurm: dict[str, str], tmp_path: Path) -> None:
    # submitit lets a job that is cancelled go on for a moment: those that wait for their turn are gone
    settings = ["launcher=slurm", "launcher.device=cpu", "launcher.runs_per_job=1", "launcher.jobs=1"]
    with start(tmp_path / "store", *settings, **slurm) as process:
        first_at_work(tmp_path / "store")
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert " cancelled" in messages
    wait_until(lambda: not ask(slurm, "squeue", "--noheader", "--states=PENDING,RUNNING"), PATIENCE)
    assert len(rows_of(tmp_path / "store")) < COUNT


@long
def test_jobs_outlive_a_killed_sweep(slurm: dict[str, str], tmp_path: Path, engine_reference: Path) -> None:
    store = tmp_path / "store"
    with start(store, *COMMON, **slurm) as process:
        first_at_work(store)
        process.kill()
    with start(store, *COMMON, **slurm) as process:  # shares the work
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    wait_until(lambda: not at_work(store), PATIENCE)
    assert_same(store, engine_reference)


@long
def test_slurm_refuses(slurm: dict[str, str], tmp_path: Path) -> None:
    command = ["sweep", "--store", tmp_path / "s", *SWEEP, *COMMON, "launcher.partition=none"]
    assert "invalid partition" in refusal(petl(*command, **slurm))
