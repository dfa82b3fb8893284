"""A Ray cluster, started on this machine or running already."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from petl_bench import __version__
from petl_bench.device import find_device
from petl_bench.errors import UserError
from petl_bench.launch.base import Round
from petl_bench.types import Job, Outcome, RaySettings, Runtime

OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory for objects passed between processes, which are specs and rows only."""
TOKEN = Path("~/.ray/auth_token")
"""File in which Ray keeps the token that its clusters require for a connection."""


def launch(work: Round[RaySettings]) -> Generator[Outcome, None, None]:
    """Yield the outcomes as they finish.

    Closing the generator ends all runs, and the cluster if it was started here. When a process dies, its run
    has the outcome `killed`.

    Raises:
        UserError: Ray is missing or cannot start, there is no such cluster or device, or a model of the plan
            cannot be built.
    """
    settings = work.settings
    ray = _ray(settings.address)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        device = _connect(ray, work)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray's own handler aborts the process
        from petl_bench.launch.preflight import preflight

        preflight(work.unchecked)
        loaders = work.loaders(device)
        needs = {
            "num_cpus": settings.threads + loaders,
            "num_gpus": 0 if device == "cpu" else settings.gpus,
        }
        _look_for_room(ray, settings, needs, work.say)
        once = 0 if device == "cpu" else 1  # a process of its own for each run, which frees the GPU's memory
        remote = ray.remote(max_calls=once, max_retries=0, **needs)(_attempt)
        runtime = replace(work.runtime, device=device, loaders=loaders)
        waiting, running = deque(work.jobs), dict[Any, Job]()
        while waiting or running:
            while waiting and len(running) < (settings.workers or len(work.jobs)):
                job = waiting.popleft()
                running[remote.remote(job, runtime, os.getcwd())] = job
            (ready,), _ = ray.wait(list(running))
            yield _outcome(ray, ready, running.pop(ready))
    finally:
        ray.shutdown()


def _ray(address: str) -> Any:
    token = TOKEN.expanduser()
    if not address:  # a token of its own, which is in no file and known to this user's processes only
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; a cluster without takes it too
        with suppress(OSError):  # of another owner
            token.chmod(0o600)  # Ray lets all users of the machine read it
    # By this Ray calls clusters of several machines off, and all its ports are those of 127.0.0.1 alone.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1" if address else "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Without the first, workers warn of a change to come; the second: how long Ray outlives a killed sweep.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    try:
        import ray
    except ImportError as error:
        raise UserError("launcher=ray: Ray is not installed: pip install 'petl-bench[ray]'") from error
    # It prints what it has to say of dead workers to stdout, which is for results.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray


QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
"""Arguments of ray.init that leave its own messages out."""


def _connect(ray: Any, work: Round[RaySettings]) -> str:
    """Start or join a cluster and return the device of its runs."""
    return _join(ray, work.settings) if work.settings.address else _begin(ray, work)


def _begin(ray: Any, work: Round[RaySettings]) -> str:
    """Start a cluster on this machine."""
    settings = work.settings
    device = find_device(settings.device)
    if device != "cpu":
        device = "cuda"  # the one that Ray lets a process see
    each = settings.threads + work.loaders(device)
    cores = settings.workers * each or max(os.cpu_count() or 1, each)
    size = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        ray.init("local", num_cpus=cores, **size, **QUIET)
    except Exception as error:
        raise UserError(f"launcher=ray: Ray cannot start on this machine: {_line(error)}") from error
    return device


def _join(ray: Any, settings: RaySettings) -> str:
    """Connect to a cluster that runs already."""
    where = f"launcher.address={settings.address}"
    _look(settings.address)
    try:
        ray.init(settings.address, **QUIET)
        version = ray.get(ray.remote(num_cpus=0, max_retries=0)(_version).remote())
    except Exception as error:
        raise UserError(f"{where}: {_line(error)}") from error
    if version != __version__:
        raise UserError(f"{where}: it has petl-bench {version}, not {__version__} as here")
    if settings.device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    return settings.device


def _look_for_room(
    ray: Any, settings: RaySettings, needs: dict[str, float], say: Callable[[str], None]
) -> None:
    """Say so if no machine of a cluster can take a run now; Ray alone would wait in silence.

    Raises:
        UserError: the cluster is this machine alone, so that no other can join.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(
        has.get("CPU", 0) >= needs["num_cpus"] and has.get("GPU", 0) >= needs["num_gpus"] for has in machines
    ):
        return
    wanted = f"{needs['num_cpus']:g} CPUs and {needs['num_gpus']:g} GPUs, which a run needs"
    if not settings.address:
        raise UserError(f"launcher.gpus={settings.gpus:g}: this machine does not have {wanted}")
    say(
        f"no machine of the cluster has {wanted} (launcher.threads, launcher.loaders, launcher.gpus); "
        "runs wait until one joins"
    )


def _look(address: str) -> None:
    """Check that a cluster answers; without one Ray would retry for long and then end the process.

    Raises:
        UserError: nothing answers at the address.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # auto, or what Ray alone understands
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError as error:
        raise UserError(
            f"launcher.address={address}: no Ray cluster answers there ({error}); `ray start --head` prints "
            "the address of the one it begins"
        ) from error


def _version() -> str:
    """Return the version of petl-bench on the machine that executes this; torch must load there too."""
    import petl_bench.launch.attempt  # noqa: F401

    return __version__


def _attempt(job: Job, runtime: Runtime, folder: str) -> Outcome:
    """Execute a run in a process of the cluster."""
    os.chdir(folder)  # paths of data and weights may be relative to it
    from petl_bench.launch.attempt import attempt

    return attempt(job, runtime)


def _outcome(ray: Any, ready: Any, job: Job) -> Outcome:
    try:
        return ray.get(ready)
    except ray.exceptions.RayError as error:
        message = f"its Ray process was killed: {_line(error)}"
        return Outcome(job.run_id, job.spec, error=message, cause="killed")


def _line(error: Exception) -> str:
    """Return the line of a Ray error that names its cause: the last one for an exception in a process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if "Traceback" in str(error) or "ray::" in lines[0] else 0]
