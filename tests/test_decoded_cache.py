"""The cache of decoded images: real processes that fill it together, die or lack room."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petl_bench.types import Cache
from tests import processes
from tests.decoding import fill, images_of, in_cache, pictures, stretched
from tests.processes import wait_until

# Other processes

CHILD = """
import hashlib, json, logging, sys, time
from pathlib import Path
import numpy as np
from petl_bench.data.decoded import decoded
from petl_bench.data.file_facts import file_facts
from petl_bench.data.lists import Listing
from petl_bench.types import Cache
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
folder, directory, start = map(Path, sys.argv[1:4])
limit, size, repeats, works = *map(int, sys.argv[4:7]), json.loads(sys.argv[7])
cache = Cache(str(directory), limit)
jobs = []
for names in works:
    facts = file_facts(folder, names, cache)
    listing = Listing(folder, folder / "list.txt", names, np.zeros(len(names), np.int64))
    jobs.append((listing, [facts[name] for name in names]))
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
shas = [
    hashlib.sha256(decoded(*job, "stretch", size, cache).tobytes()).hexdigest()
    for _ in range(repeats)
    for job in jobs
]
print(json.dumps(shas), flush=True)
"""


def child(
    folder: Path, cache: Cache, start: Path, size: int, works: list[list[str]], repeats: int = 1
) -> subprocess.Popen[str]:
    """Another process that decodes `works`, lists of file names, one after another, once `start` is there."""
    numbers = [str(cache.limit), str(size), str(repeats), json.dumps(works)]
    command = [sys.executable, "-c", CHILD, str(folder), cache.directory, str(start), *numbers]
    return processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_together(processes: list[subprocess.Popen[str]], start: Path) -> list[tuple[list[str], str]]:
    """Let them go when all are ready; the hashes that each found, and its log."""
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        start.touch()
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, messages) in zip(processes, ended, strict=True):
        assert process.returncode == 0, messages
    return [(json.loads(out), messages) for out, messages in ended]


def test_processes_that_fill_one_cache_at_once_end_with_one_valid_file(tmp_path: Path, cache: Cache) -> None:
    images = pictures(tmp_path / "images", 300, 40, cache)
    size, names, start = 32, images.listing.names, tmp_path / "start"
    results = run_together([child(tmp_path / "images", cache, start, size, [names]) for _ in range(3)], start)
    expected = np.stack([stretched(path, size) for path in images.paths])
    shas = {sha for found, _ in results for sha in found}
    assert shas == {hashlib.sha256(expected.tobytes()).hexdigest()}
    assert sum(messages.count("decoding 300 images") for _, messages in results) == 1
    files, temporary = in_cache(cache)
    assert (len(files), temporary) == (1, [])
    np.testing.assert_array_equal(np.load(Path(cache.directory) / "decoded" / files[0]), expected)


MANY = 120


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MANY names of large images, a second of work: three files of 1000 x 750 with many links."""
    folder = tmp_path_factory.mktemp("slow")
    for number in range(3):
        noise = np.random.RandomState(number).randint(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((1000, 750)).save(folder / f"{number:03d}.jpg")
    for number in range(3, MANY):
        os.link(folder / f"{number % 3:03d}.jpg", folder / f"{number:03d}.jpg")
    return folder


@pytest.mark.parametrize("written", [1, 20 * 3 * 64 * 64], ids=["just begun", "midway"])
def test_a_killed_fill_leaves_nothing_that_is_taken_for_valid(
    slow: Path, tmp_path: Path, cache: Cache, written: int
) -> None:
    names, start, folder = [f"{n:03d}.jpg" for n in range(MANY)], tmp_path / "go", Path(cache.directory)
    images = images_of(slow, names, cache)

    def begun() -> bool:
        return any(path.stat().st_size >= written for path in (folder / "decoded").glob(".*"))

    with child(slow, cache, start, 64, [names]) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            start.touch()
            wait_until(lambda: begun() or process.poll() is not None)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL  # and not at its own end
    files, temporary = in_cache(cache)
    assert files == []
    assert len(temporary) == 1  # a half file is there, and does not count
    found = fill(images, 64, cache)
    expected = [stretched(slow / name, 64) for name in names[:3]]
    np.testing.assert_array_equal(found, [expected[number % 3] for number in range(MANY)])
    files, temporary = in_cache(cache)
    assert (len(files), temporary) == (1, [])


def test_the_next_process_goes_on_where_another_was_killed_while_it_waited(
    slow: Path, tmp_path: Path, cache: Cache
) -> None:
    names, folder = [f"{n:03d}.jpg" for n in range(MANY)], Path(cache.directory)
    images_of(slow, names, cache)
    starts = [tmp_path / "first", tmp_path / "second"]
    first, second = (child(slow, cache, start, 64, [names]) for start in starts)
    try:
        for process in (first, second):
            assert process.stdout.readline() == "ready\n"
        starts[0].touch()
        wait_until(lambda: any((folder / "decoded").glob(".*")) or first.poll() is not None)
        starts[1].touch()
        time.sleep(0.2)  # the second is at the lock now, or will be: either way it must come through
        first.send_signal(signal.SIGKILL)
        out, messages = second.communicate(timeout=120)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert first.returncode == -signal.SIGKILL
    assert second.returncode == 0, messages
    (sha,) = json.loads(out)
    expected = [stretched(slow / name, 64) for name in names[:3]]
    whole = np.stack([expected[number % 3] for number in range(MANY)])
    assert sha == hashlib.sha256(whole.tobytes()).hexdigest()
    assert in_cache(cache)[1] == []
