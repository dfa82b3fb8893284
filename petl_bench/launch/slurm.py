"""Jobs of a Slurm cluster, submitted through submitit: job arrays, each job with several runs in sequence."""

from __future__ import annotations

import io
import logging
import multiprocessing
import re
import shutil
import subprocess
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petl_bench.errors import UserError, counted
from petl_bench.launch.base import Round
from petl_bench.store import Store
from petl_bench.types import Job, Outcome, Runtime, SlurmSettings

PAUSE = 2.0
"""Seconds between two looks at the queue and the store."""
FOLDER = ".jobs"
"""Folder of the store with the files that submitit hands to jobs, and their logs."""


@dataclass
class Chunk:
    """The runs of one job; when the job is queued again, runs that are done take no time."""

    jobs: Sequence[Job]
    runtime: Runtime

    def __call__(self) -> list[Outcome]:
        from petl_bench.launch.attempt import attempt

        done = []
        for number, job in enumerate(self.jobs, 1):
            done.append(attempt(job, self.runtime))
            if done[-1].cause == "device" and self.runtime.device != "cpu" and self.jobs[number:]:
                # Such an error stays with the process: the others get one of their own.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
                    return done + executor.submit(replace(self, jobs=self.jobs[number:])).result()
        return done

    def checkpoint(self) -> Any:
        """Return what submitit queues when Slurm announces that the job is preempted or out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def launch(work: Round[SlurmSettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes as they appear in the store; closing the generator cancels the jobs.

    When a job ends without a result, its unfinished runs have the outcome `killed`.

    Raises:
        UserError: submitit or Slurm is missing, Slurm refuses the jobs, or a model cannot be built.
    """
    jobs, settings, store = work.jobs, work.settings, Store(Path(work.runtime.store))
    loaders = work.loaders(settings.device if settings.gpus else "cpu")
    executor = _executor(store.root, settings, settings.threads + loaders)
    from petl_bench.launch.preflight import preflight

    preflight(work.unchecked)
    size = settings.runs_per_job
    runtime = replace(work.runtime, device=settings.device, loaders=loaders)  # found where the job runs
    waiting = [Chunk(jobs[i : i + size], runtime) for i in range(0, len(jobs), size)]
    running: list[tuple[Any, list[Job]]] = []
    work.say(f"{counted(len(waiting), 'job')} for {counted(len(jobs), 'run')}; logs: {executor.folder}")
    try:
        while waiting or running:
            # Slurm itself keeps to launcher.jobs; submitit on this machine would begin all of them at once.
            room = len(waiting) if settings.cluster == "slurm" else settings.jobs - len(running)
            if chunks := waiting[:room]:
                waiting = waiting[room:]
                tasks = _submit(executor, chunks)
                running += [(task, list(chunk.jobs)) for task, chunk in zip(tasks, chunks, strict=True)]
            # Asked before the store, in which what ends between is found then.
            alive = _alive(settings.cluster, [task for task, _ in running])
            for task, left in running:
                for job in list(left):
                    if (news := store.outcome_elsewhere(job)) is not None:
                        left.remove(job)
                        yield replace(news, elsewhere=False)
                if task.job_id not in alive:
                    yield from _rest(settings.cluster, task, left)
            running = [(task, left) for task, left in running if task.job_id in alive and left]
            if running:
                time.sleep(PAUSE)
    finally:
        if running:
            _cancel(settings.cluster, [task for task, _ in running])
            work.say(f"{counted(len(running), 'job')} cancelled")


def _executor(store: Path, settings: SlurmSettings, cores: int) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "launcher=slurm: submitit is not installed: pip install 'petl-bench[slurm]'"
        ) from error
    # It talks on stdout, which is for results.
    logging.getLogger("submitit").handlers = [logging.NullHandler()]
    if settings.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("launcher=slurm: no sbatch here; launcher.cluster=local tries jobs on this machine")
    executor = submitit.AutoExecutor(store / FOLDER, settings.cluster, slurm_max_num_timeout=settings.retries)
    executor.update_parameters(
        name="petl-bench",
        timeout_min=settings.minutes,
        cpus_per_task=cores,
        gpus_per_node=settings.gpus or None if settings.device != "cpu" else None,
        mem_gb=settings.memory_gb or None,
        slurm_partition=settings.partition or None,
        slurm_array_parallelism=settings.jobs,
        slurm_srun_args=[f"--cpus-per-task={cores}"],  # srun does not take it from sbatch since Slurm 22.05
        slurm_additional_parameters=settings.sbatch,
    )
    return executor


def _submit(executor: Any, chunks: Sequence[Chunk]) -> list[Any]:
    from submitit.core.utils import FailedJobError

    try:
        with redirect_stderr(io.StringIO()):  # submitit prints there what it raises
            return list(executor.submit_array(chunks))
    except FailedJobError as error:
        raise UserError(f"launcher=slurm: Slurm refuses the jobs: {' '.join(str(error).split())}") from error


def _alive(cluster: str, tasks: Iterable[Any]) -> set[str]:
    """Return the ids of the jobs that wait or run, or of all jobs if the queue cannot be read.

    submitit is not asked, because it reads the accounting records of jobs, which not every cluster keeps.
    """
    if cluster == "local":
        return {task.job_id for task in tasks if not task.done()}
    queue = _ask("squeue", "--me", "--noheader", "--array", "--format=%i")
    return {task.job_id for task in tasks} if queue is None else set(queue.split())


def _rest(cluster: str, task: Any, left: Iterable[Job]) -> Iterable[Outcome]:
    """Yield the outcomes of those runs of a finished job of which the store holds nothing."""
    from submitit.core.utils import FailedJobError

    how, said = "", {}
    if task.paths.result_pickle.exists():
        try:
            said = {outcome.run_id: outcome for outcome in task.result()}
        except FailedJobError as error:
            how = str(error).partition("\n-----\n")[0]
    elif cluster == "slurm":
        facts = _ask("scontrol", "--oneliner", "show", "job", task.job_id) or ""
        how = ", ".join(re.findall(r"(?:JobState|Reason|ExitCode)=\S+", facts))
    message = f"its job {task.job_id} ended without a result ({how or task.state}); log: {task.paths.stderr}"
    for job in left:
        yield said.get(job.run_id) or Outcome(job.run_id, job.spec, error=message, cause="killed")


def _cancel(cluster: str, tasks: Iterable[Any]) -> None:
    if cluster == "slurm":
        _ask("scancel", *{task.job_id.partition("_")[0] for task in tasks})
    else:
        for task in tasks:
            task.cancel()


def _ask(*command: str) -> str | None:
    """Return what a command of Slurm prints, or None if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout
