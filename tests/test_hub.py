"""Data sets from a stand-in hub: real files, real processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from petl_bench.data.prepare import LOCK, STAGING
from tests.archives import (
    Files,
    below,
    packed,
    start,
    task,
    tree,
    write_tree,
)

COMMIT = "5" * 40


class Hub(ThreadingHTTPServer):
    """What huggingface_hub 2.4 asks for a snapshot: the repository, its tree, HEAD and GET of files."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Files]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = repositories
        self.broken: set[str] = set()
        """Files whose GET answers 500."""
        self.cut: set[str] = set()
        """Files whose first GET ends half way."""
        self.gets: list[tuple[str, str | None]] = []
        """Files that were asked for, with the range."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        kind, _, path = self.path.partition("?")[0].lstrip("/").removeprefix("api/").partition("/")
        repo, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        if repo == "some/gated":
            self.answer(403, X_Error_Code="GatedRepo")
        elif repo == "some/private":
            self.answer(401)
        elif kind != "datasets" or repo not in self.server.repositories:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif rest[:1] == ["resolve"]:
            self.file("/".join(rest[2:]), self.server.repositories[repo])
        else:
            self.facts(repo, rest[:1] == ["tree"])

    do_HEAD = do_GET

    def facts(self, repo: str, as_tree: bool) -> None:
        files = self.server.repositories[repo]
        entries = [
            {"type": "file", "path": n, "size": len(d), "oid": f"{len(d):040}"} for n, d in files.items()
        ]
        siblings = [{"rfilename": name} for name in files]
        info = {"id": repo, "sha": COMMIT, "siblings": siblings}
        self.answer(200, json.dumps(entries if as_tree else info).encode(), Content_Type="application/json")

    def file(self, name: str, files: Files) -> None:
        data, span = files[name], self.headers.get("Range")
        headers = {"ETag": f'"{len(data):040}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if self.command == "GET":
            self.server.gets.append((name, span))
            if name in self.server.broken:
                self.answer(500)
                return
            if name in self.server.cut:
                self.server.cut.remove(name)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
        if span is not None:
            first = int(span.removeprefix("bytes=").partition("-")[0])
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[first:], **headers)
        else:
            self.answer(200, data, **headers)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    archive = packed("vtab-1k.zip", below("vtab-1k/cifar", task()) | below("vtab-1k/dtd", task()), tmp_path)
    with Hub({"owner/vtab": {"README.md": b"facts", "data/vtab-1k.zip": archive}}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(source: str, target: Path, hub: Hub | str, **environment: str) -> tuple[str, str]:
    """stdout and stderr of a process with this hub as its HF_ENDPOINT and a cache of its own."""
    url = hub if isinstance(hub, str) else hub.url
    home = str(target.parent / "hf-home")
    process = start(
        source, target, HF_ENDPOINT=url, HF_HOME=home, HF_TOKEN="", NO_PROXY="127.0.0.1", **environment
    )
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert (process.returncode == 0) == ("UserError" not in err)
    return out, err


def test_a_data_set_of_the_hub_is_downloaded_and_placed(hub: Hub, tmp_path: Path) -> None:
    out, err = ask("hub:owner/vtab", tmp_path / "root", hub)
    assert sorted(json.loads(out)) == ["cifar", "dtd"], err
    assert tree(tmp_path / "root") == below("cifar", task()) | below("dtd", task())
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"cifar", "dtd", LOCK}


def test_a_broken_download_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.broken.add("data/vtab-1k.zip")
    _, err = ask("fetch:owner/vtab", tmp_path / "got", hub)
    assert "the download failed" in err
    assert hub.url in err
    assert tree(tmp_path / "got")["README.md"] == b"facts"
    hub.broken.clear()
    hub.gets.clear()
    _, err = ask("fetch:owner/vtab", tmp_path / "got", hub)
    assert (tmp_path / "got/data/vtab-1k.zip").read_bytes() == (tmp_path / "vtab-1k.zip").read_bytes(), err
    assert [name for name, _ in hub.gets] == ["data/vtab-1k.zip"]


def test_a_connection_cut_in_a_file_goes_on_from_there(hub: Hub, tmp_path: Path) -> None:
    large = bytes(range(256)) * (21 << 12)  # 21 MiB: the client keeps what it has in pieces of 10 MiB
    hub.repositories = {"owner/large": {"large": large}}
    hub.cut.add("large")
    _, err = ask("fetch:owner/large", tmp_path / "got", hub)
    assert (tmp_path / "got/large").read_bytes() == large, err
    assert hub.gets == [("large", None), ("large", f"bytes={10 << 20}-")]


def test_a_half_filled_folder_is_not_passed_off_as_complete(hub: Hub, tmp_path: Path) -> None:
    """snapshot_download alone returns such a folder, with a warning, when the hub cannot be reached."""
    write_tree(tmp_path / "got", {"README.md": b"facts"})
    _, err = ask("fetch:owner/vtab", tmp_path / "got", "http://127.0.0.1:9")
    assert "UserError" in err


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("owner/absent", "no such data set"),
        ("some/gated", "it is gated"),
        ("some/private", "hf auth login"),
        ("no//name", "owner/name"),
    ],
)
def test_a_repository_that_is_not_given_out_is_one_clear_message(
    repo: str, said: str, hub: Hub, tmp_path: Path
) -> None:
    _, err = ask(f"hub:{repo}", tmp_path / "root", hub)
    message = err.partition("UserError: ")[2]
    assert said in message
    assert repo in message
    assert message.count("\n") == 1


def test_a_hub_that_cannot_be_reached_is_one_clear_message(tmp_path: Path) -> None:
    _, err = ask("hub:owner/vtab", tmp_path / "root", "http://127.0.0.1:9")
    message = err.partition("UserError: ")[2]
    assert "http://127.0.0.1:9" in message
    assert "HF_ENDPOINT" in message
    assert "ConnectError" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "root" / STAGING).exists()
