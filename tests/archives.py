"""Archives and folders for tests of `data prepare`, and a way to run `prepare` in another process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from petl_bench.data.prepare import LOCK, prepare
from petl_bench.errors import UserError
from tests import processes

FOLDERS = {
    "cifar": ["cifar-100", "cifar100"],
    "dtd": [],
    "few-shot/fgvc-aircraft": ["few-shot_split/fgvc-aircraft"],
    "fgvc_aircraft/images": ["fgvc-aircraft"],
}

Files = Mapping[str, bytes]


def task(count: int = 3, suffix: str = ".jpg") -> dict[str, bytes]:
    """Return the files of a task folder in the exact layout; no two images have the same bytes."""
    files = {}
    for split in ("train800", "test"):
        names = [f"images/{split}/{i:06}{suffix}" for i in range(count)]
        files |= {name: name.encode() * 9 for name in names}
        files[f"{split}.txt"] = "".join(f"{name} {i}\n" for i, name in enumerate(names)).encode()
    return files


def below(folder: str, files: Files) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, except the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def everything(folder: Path) -> list[str]:
    """Return all paths below a folder, of files and folders, except the lock."""
    return sorted(str(path) for path in folder.rglob("*") if path.name != LOCK)


def write_tree(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, files: Files) -> Path:
    """Write an archive of the kind that the suffix of its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    compression = {"tar": "", "tgz": "gz"}.get(path.name.rpartition(".")[2], path.name.rpartition(".")[2])
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, data in files.items():
            add(tar, name, data, mode=0o600)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def packed(name: str, files: Files, folder: Path) -> bytes:
    """Return the bytes of an archive, to be placed inside another one."""
    return pack(folder / name, files).read_bytes()


def silent(_: str) -> None:
    pass


def refusal(source: Path, root: Path) -> str:
    """Return the message with which `prepare` refuses a source; the root must stay empty but for the lock."""
    with pytest.raises(UserError) as error:
        prepare(source, root, FOLDERS, silent)
    assert everything(root) == []
    return str(error.value)


SCRIPT = """
import json, sys
from pathlib import Path
from petl_bench.data import hub, prepare
source, root, folders = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
def report(line): print(line, file=sys.stderr, flush=True)
try:
    if source.startswith("hub:"):
        placed = hub.prepare_from_hub(source[4:], root, folders, report)
    elif source.startswith("fetch:"):
        placed = hub.fetch(source[6:], root, report)
    else:
        placed = prepare.prepare(Path(source), root, folders, report)
except prepare.UserError as error:
    sys.exit(f"UserError: {error}")
print(json.dumps(placed))
"""


def start(source: object, root: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `prepare`, `fetch` or `prepare_from_hub` in another process."""
    return processes.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(root), json.dumps(FOLDERS)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
