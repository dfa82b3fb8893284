"""`petl-bench export --push` to a stand-in hub: real requests of the hub's client, real files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors

from petl_bench.store import ADAPTER
from petl_bench.use import exported, load, read
from tests.conftest import error_of, json_lines, pick, quickly
from tests.test_hub import Hub, HubHandler

TOKEN = "hf_" + "secret" * 6
REPO = "somebody/digits-lora"


class ModelHub(Hub):
    """A hub that takes models: what huggingface_hub 2.4 asks to create a repository and to commit to it.

    Attributes:
        models: files of each model repository.
        role: role of the token.
        refused: beginnings of paths that answer 403.
        asked: methods and paths of all requests.
        blobs: contents that were uploaded by Git LFS.
    """

    def __init__(self) -> None:
        super().__init__({})
        self.RequestHandlerClass = ModelHubHandler
        self.models: dict[str, dict[str, bytes]] = {}
        self.role = "write"
        self.refused: list[str] = []
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}


class ModelHubHandler(HubHandler):
    server: ModelHub

    def do_POST(self) -> None:
        self.respond(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.respond(b"")

    do_HEAD = do_GET

    def respond(self, body: bytes) -> None:
        path = self.path.partition("?")[0].removesuffix("/")
        self.server.asked.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models/").split("/")
        repo, what = "/".join(parts[:2]), parts[2:]
        if path.startswith("/blob/"):
            self.server.blobs[path.removeprefix("/blob/")] = body
            self.answer(200)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401)
        elif any(path.startswith(start) for start in self.server.refused):
            self.answer(403)
        elif path == "/api/whoami-v2":
            self.tell({"name": "somebody", "auth": {"accessToken": {"role": self.server.role}}})
        elif path == "/api/validate-yaml":
            self.tell({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            self.server.models[name] = {".gitattributes": b""}
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self.tell({"url": f"{self.server.url}/{name}"})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        elif "resolve" in path:
            owner, name, *_, file = path.lstrip("/").split("/")
            self.file(file, self.server.models[f"{owner}/{name}"])
        elif repo not in self.server.models:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif what[:1] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = {True: "regular", False: "lfs"}
            self.tell(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": modes[file["path"].endswith((".md", ".json"))],
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
        elif what[:1] == ["commit"]:
            self.commit(repo, [json.loads(line) for line in body.splitlines()])
        else:
            files = self.server.models[repo]
            tree = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in files.items()]
            facts = {"id": repo, "sha": "5" * 40, "siblings": [{"rfilename": name} for name in files]}
            self.tell(tree if what[:1] == ["tree"] else facts)

    def tell(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def batch(self, asked: dict[str, Any]) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.server.url}/blob/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self.tell({"transfer": "basic", "objects": objects})

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.models[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.server.blobs[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                self.server.models[repo][value["path"]] = data
        url = f"{self.server.url}/{repo}/commit/{'5' * 40}"
        self.tell({"commitUrl": url, "commitOid": "5" * 40})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    from huggingface_hub import constants

    with ModelHub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()
        thread.join()


def same(one: bytes, two: bytes) -> bool:
    """Compare files; safetensors writes the entries of its metadata in any order."""
    if one[:1] == b"{":
        return one == two
    tensors = load_tensors(one), load_tensors(two)
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(value, tensors[1][name]) for name, value in tensors[0].items()
    )


@pytest.mark.parametrize("form", ["timm", "safetensors", "peft"])
def test_a_run_is_pushed_with_a_card_of_its_facts(
    form: str, hub: ModelHub, finished_store: Path, tmp_path: Path
) -> None:
    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    run, out = finished_store / row["run_id"], tmp_path / "out"
    done = quickly("export", run, *([out] if form == "timm" else []), "--to", form, "--push", REPO, "--json")
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    (found,) = json_lines(done.stdout)
    assert found["pushed"] == f"{hub.url}/{REPO}"
    assert found["out"] == (str(out) if form == "timm" else None)
    assert hub.private == {REPO: True}
    files = exported(read(run), form)
    held = hub.models[REPO]
    assert held.keys() == {name or "model.safetensors" for name in files} | {"README.md", ".gitattributes"}
    for name, data in files.items():
        assert same(held[name or "model.safetensors"], data)
        assert form != "timm" or (out / name).read_bytes() == held[name]
    card = held["README.md"].decode()
    for fact in (
        f"{100 * row['acc']:.2f} % ({round(row['acc'] * row['n_test'])} of {row['n_test']} images)",
        "`fixed`: hyper-parameters fixed beforehand",
        row["scale_from"],
        f"{row['bytes_file']:,} bytes (adapter {row['bytes_adapter']:,}, head {row['bytes_head']:,}",
        "`digits`: Scanned handwritten digits; 10 classes",
        "`vit_tiny_patch16_224` (`pocket`)",
        row["backbone_sha256"],
        row["run_id"],
        "## Licence",
        "CC BY 4.0 (UCI)",
        f"value: {round(row['acc'], 6)}",
    ):
        assert fact in card
    # Again: nothing is overwritten, and the repository stays what it is.
    again = quickly("export", run, "--to", form, "--push", REPO)
    assert "holds files already" in error_of(again)
    assert hub.models[REPO] == held


def test_the_code_of_the_card_loads_the_model(hub: ModelHub, finished_store: Path, tmp_path: Path) -> None:
    """In a new process, as somebody who reads the card executes it."""
    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    done = quickly("export", finished_store / row["run_id"], "--to", "timm", "--push", REPO)
    assert done.returncode == 0, done.stderr
    (code,) = re.findall(r"```python\n(.*?)```", hub.models[REPO]["README.md"].decode(), re.DOTALL)
    assert len(code.splitlines()) <= 3
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    script = f"{code}\nimport torch; print(model(torch.zeros(1, 3, 32, 32)).tolist())"
    found = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | own, capture_output=True, text=True, check=True
    )
    expected = load(finished_store / row["run_id"])(torch.zeros(1, 3, 32, 32))
    assert torch.allclose(torch.tensor(json.loads(found.stdout)), expected, atol=1e-4)


REFUSALS: dict[str, tuple[str, str]] = {
    "no name": ("no//name", "give OWNER/NAME"),
    "no owner": ("name", "give OWNER/NAME"),
    "no token": (REPO, "no token of the hub is known"),
    "token that may read": (REPO, "the token may only read"),
    "unknown token": (REPO, "access was refused"),
    "no network": (REPO, "the hub failed; check the connection"),
    "offline": (REPO, "HF_HUB_OFFLINE is set"),
    "lone file": (REPO, "give its run"),
    "files there": ("somebody/full", "holds files already (config.json)"),
    "may not create": (REPO, "access was refused"),
}


@pytest.mark.parametrize("fault", list(REFUSALS))
def test_refusals_are_one_message_before_anything_is_written(
    fault: str, hub: ModelHub, finished_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    source, out = finished_store / row["run_id"], tmp_path / "out"
    hub.models["somebody/full"] = {"config.json": b"{}"}
    match fault:
        case "no token":
            monkeypatch.delenv("HF_TOKEN")
        case "token that may read":
            hub.role = "read"
        case "unknown token":
            monkeypatch.setenv("HF_TOKEN", "hf_other")
        case "no network":
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        case "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        case "may not create":
            hub.refused.append("/api/repos/create")
        case "lone file":
            source = tmp_path / "lone.safetensors"
            source.write_bytes((finished_store / row["run_id"] / ADAPTER).read_bytes())
    repo, said = REFUSALS[fault]
    done = quickly("export", source, out, "--to", "safetensors", "--push", repo)
    message = error_of(done)
    assert said in message
    assert TOKEN not in message
    assert "hf_other" not in message
    assert not out.exists()
    assert hub.models == {"somebody/full": {"config.json": b"{}"}}
