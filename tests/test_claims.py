"""Claims: one owner at a time, by real processes that race, die and pause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from petl_bench.errors import StoreError
from petl_bench.store import ClaimedError, Claims, Store
from petl_bench.store.claims import MISSED
from tests import processes
from tests.processes import wait_until

BEAT = 0.05
TAKE = """
import sys, time
from pathlib import Path
from petl_bench.store import ClaimedError, Claims
claims = Claims(Path(sys.argv[1]))
try:
    claim = claims.take("run", float(sys.argv[2])).__enter__()
except ClaimedError:
    sys.exit(3)
print("taken", flush=True)
time.sleep(float(sys.argv[3]))
claim.__exit__(None, None, None)
"""


@pytest.fixture(autouse=True)
def _store(tmp_path: Path) -> None:
    Store(tmp_path).create()


def holder(store: Path, seconds: float = 60, beat: float = BEAT) -> subprocess.Popen[str]:
    """Another process with the claim."""
    command = [sys.executable, "-c", TAKE, str(store), str(beat), str(seconds)]
    process = processes.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def file_of(store: Path) -> Path:
    (file,) = (store / ".claims/run").iterdir()
    return file


def elsewhere(file: Path) -> None:
    """Make the claim one of another machine, whose processes nobody here can look up."""
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": "another", "host": "far"}))


def test_a_claim_has_one_owner_and_can_be_had_again(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with claims.take("run", BEAT) as claim:
        assert claim.held
        claim.require()
        assert claims.running() == {"run"}
        assert claims.clear(["run", "other"]) == ["other"]
        with pytest.raises(ClaimedError, match="another process is at work on this run"):
            Claims(tmp_path).take("run", BEAT)
        with claims.take("other", BEAT):
            assert claims.running() == {"run", "other"}
    assert claims.running() == set()
    with claims.take("run", BEAT):
        pass
    assert list((tmp_path / ".claims").iterdir()) == []


def test_the_owner_is_named(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        owner = Claims(tmp_path).owner("run")
        assert owner is not None
        assert owner.pid == process.pid
        assert str(owner).endswith(f"process {process.pid}")
        assert not owner.dead
        process.kill()
    assert owner.dead


def test_a_killed_owner_on_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    with holder(tmp_path, beat=1e6) as process:  # its heartbeat would be waited for for weeks
        with pytest.raises(ClaimedError):
            Claims(tmp_path).take("run", BEAT)
        process.kill()
        # not yet waited for: a zombie has its pid still
        wait_until(lambda: Claims(tmp_path).clear(["run"]), 10)
        with Claims(tmp_path).take("run", BEAT) as claim:
            assert claim.held


def test_a_pid_that_was_given_again_is_no_owner(tmp_path: Path) -> None:
    with Claims(tmp_path).take("run", 1e6):
        file = file_of(tmp_path)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"born": "1"}))
        with Claims(tmp_path).take("run", BEAT) as mine:
            assert mine.held


def test_a_silent_owner_elsewhere_is_followed_after_its_beats(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        elsewhere(file_of(tmp_path))
        process.kill()
    watching = Claims(tmp_path)
    begin = time.monotonic()
    assert watching.clear(["run"]) == []
    wait_until(lambda: watching.clear(["run"]), 20)
    assert time.monotonic() - begin >= MISSED * BEAT
    with watching.take("run", BEAT) as claim:
        assert claim.held


@pytest.mark.parametrize("wrong", [0.0, 4e9])
def test_a_living_owner_elsewhere_is_left_whatever_its_clock_says(tmp_path: Path, wrong: float) -> None:
    with holder(tmp_path) as process:
        elsewhere(file_of(tmp_path))
        watching = Claims(tmp_path)
        end = time.monotonic() + 3 * MISSED * BEAT
        while time.monotonic() < end:
            # what a server with another clock, set back and forth, would write
            os.utime(file_of(tmp_path), (wrong, wrong + time.monotonic() % 1))
            assert watching.clear(["run"]) == []
            time.sleep(BEAT)
        process.kill()


def test_a_paused_owner_loses_its_claim_and_knows(tmp_path: Path) -> None:
    paused = Claims(tmp_path).take("run", 1e6)  # never beats, as a process that was stopped
    file = file_of(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"heartbeat": BEAT}))
    watching = Claims(tmp_path)
    wait_until(lambda: watching.clear(["run"]), 20)
    with paused, watching.take("run", BEAT) as mine:
        assert not paused.held
        with pytest.raises(ClaimedError, match="another process"):
            paused.require()
        assert mine.held
    # and what it gives up is not another's
    with watching.take("run", BEAT) as mine:
        paused.__exit__(None, None, None)
        assert mine.held


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b"[1, 2]"])
def test_a_spoiled_claim_is_followed_in_time(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petl_bench.store.claims.UNKNOWN_BEAT", BEAT)
    place = tmp_path / ".claims/run"
    place.mkdir(parents=True)
    (place / "token").write_bytes(content)
    watching = Claims(tmp_path)
    assert watching.clear(["run"]) == []
    wait_until(lambda: watching.clear(["run"]), 20)


def test_an_empty_directory_is_no_claim(tmp_path: Path) -> None:
    # what a kill leaves between the removal of the file and of the directory
    (tmp_path / ".claims/run").mkdir(parents=True)
    assert Claims(tmp_path).running() == set()
    with Claims(tmp_path).take("run", BEAT) as claim:
        assert claim.held


RACE = """
import fcntl, os, sys, time
from pathlib import Path
from petl_bench.store import ClaimedError, Claims
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
claims, won = Claims(root), 0
lock = os.open(root / "inside", os.O_CREAT | os.O_RDWR)
end = time.monotonic() + 60
while won < rounds and time.monotonic() < end:
    try:
        claim = claims.take("run", 10)
    except ClaimedError:
        continue
    with claim:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where two are in here; the kernel frees it
        time.sleep(0.001)
        fcntl.flock(lock, fcntl.LOCK_UN)
    won += 1
print(won)
"""


def racer(store: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RACE, str(store), str(rounds)]
    return processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def owned_by(store: Path, pid: int) -> bool:
    owner = Claims(store).owner("run")
    return owner is not None and owner.pid == pid


def test_racing_processes_are_inside_one_at_a_time_and_follow_dead_ones(tmp_path: Path) -> None:
    racers = [racer(tmp_path, 100) for _ in range(3)]
    victim = racer(tmp_path, 10**9)
    for _ in range(8):
        wait_until(partial(owned_by, tmp_path, victim.pid))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        victim = racer(tmp_path, 10**9)
    for process in racers:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "100\n"), errors
    victim.kill()
    victim.communicate()
    with Claims(tmp_path).take("run", BEAT) as claim:
        assert claim.held


def test_what_died_while_it_took_a_claim_is_tidied(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        dead = tmp_path / ".claims/.abcdef"
        dead.mkdir()
        (dead / "abcdef").write_bytes(file_of(tmp_path).read_bytes())
        Claims(tmp_path).tidy()
        assert dead.exists()  # its owner lives
        process.kill()
    Claims(tmp_path).tidy()
    assert not dead.exists()


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".claims").rmdir()
    (tmp_path / ".claims").write_text("a file")
    with pytest.raises(StoreError, match=r"store .*: cannot claim runs there: Not a directory"):
        Claims(tmp_path).take("run", BEAT)


def test_a_store_that_vanishes_is_said_and_not_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.create()
    with store.claims.take("run", BEAT) as claim:
        store.root.rename(tmp_path / "elsewhere")
        for mounted in (False, True):  # nothing is there, or the empty folder of a disk that is not mounted
            if mounted:
                store.root.mkdir()
            for action in (claim.require, lambda: store.claims.take("other", BEAT)):
                with pytest.raises(StoreError, match="has vanished"):
                    action()
    assert os.listdir(store.root) == []


def test_owners_compare_as_they_should() -> None:
    from petl_bench.store.claims import Owner, _born, _machine

    mine = Owner("here", os.getpid(), _machine(), _born(os.getpid()) or "", 1.0)
    assert not mine.dead
    assert replace(mine, born="0").dead
    assert not replace(mine, born="0", machine="another").dead
    assert not replace(mine, born="0", machine="").dead
