"""Hostile files: adapter files, files of a store, lists, images, weights, and names of every byte."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

from tests.hostile.inputs import ONE, Attempt, Place, damage, signed, taken_apart
from tests.hostile.words import BYTES, JSON, METADATA, SNIPPETS, TEXTS


def adapter(r: random.Random, place: Place) -> Attempt:
    source = r.choice(place.adapters)
    data = source.read_bytes()
    path = place.folder / "a.safetensors"
    how = r.random()
    if how < 0.2:
        path.write_bytes(data)
        about = damage(r, path)
    elif how < 0.3:
        at = r.randrange(len(data))
        path.write_bytes(
            r.choice(
                [
                    data[:at],
                    data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :],
                    data + data,
                    r.randbytes(8) + data[8:],
                    (2**62).to_bytes(8, "little") + data[8:],
                ]
            )
        )
        about = f"bytes at {at}"
    else:
        metadata, payload = taken_apart(data)
        at = r.randrange(len(metadata))
        key, _ = metadata[at]
        value = r.choice(METADATA)
        if r.random() < 0.15:
            del metadata[at]
            about = f"without {key}"
        elif r.random() < 0.2:
            new = (
                r.choice(
                    [
                        key,
                        "a.x",
                        "a.dropout",
                        "b.depth",
                        "image_size",
                        "weights",
                        "p",
                        "packing",
                        "statistics",
                        "nope",
                        "",
                    ]
                ),
                value,
            )
            metadata.append(new)
            about = f"with {new[0]}={value[:40]!r}"
        else:
            metadata[at] = (key, value)
            about = f"{key}={value[:40]!r}"
        path.write_bytes(signed(metadata, payload if r.random() < 0.9 else payload[:10]))
    command = r.choice(
        [
            ["inspect"],
            ["inspect", "--json"],
            ["eval"],
            ["eval", "--task", "digits"],
            ["convert"],
            ["convert-vit"],
            ["convert-raw"],
        ]
    )
    if command[0] == "convert":
        arguments = ["convert", path, place.folder / "out.safetensors", "--to", "petl-bench"]
    elif command[0] == "convert-raw":
        arguments = [
            "convert",
            path,
            place.folder / "out.safetensors",
            "--to",
            "petl-bench",
            "--packing",
            "raw",
        ]
    elif command[0] == "convert-vit":
        arguments = ["convert", path, place.folder / "out.bin", "--to", "petl-vit"]
    else:
        arguments = [*command, path]
    return Attempt([*map(str, arguments)], f"{command} {about}")


def stored(r: random.Random, place: Place) -> Attempt:
    """Edit a file of a store."""
    copy = Path(shutil.copytree(place.store, place.folder / "store"))
    run = r.choice(sorted(copy.glob("*/row.json"))).parent
    path = run / r.choice(["row.json", "row.json", "row.json", "spec.json", "search.json", "error.json"])
    if not path.exists():
        path.write_text('{"message": "x", "cause": "error"}')
    if r.random() < 0.25:
        about = damage(r, path)
    elif r.random() < 0.1:
        path.write_text(r.choice(SNIPPETS + TEXTS), errors="surrogatepass")
        about = "other text"
    else:
        values = json.loads(path.read_text())
        at = values
        key = r.choice(sorted(at))
        while isinstance(at[key], dict) and at[key] and r.random() < 0.7:
            at = at[key]
            key = r.choice(sorted(at))
        at[key] = r.choice(JSON)
        about = f"{key}={str(at[key])[:40]!r}"
        if r.random() < 0.1:
            del at[key]
            about = f"no {key}"
        path.write_text(json.dumps(values))
    commands = [
        *(["report", "--format", form] for form in ("text", "markdown", "csv", "json", "latex", "html")),
        ["report"],
        ["store", "check"],
        ["store", "check", "--json"],
        ["store", "check", "--repair"],
        ["eval", run.name, "--json"],
        ["eval", str(run)],
        ["inspect", str(run)],
        [
            "sweep",
            "--dry-run",
            "task=digits",
            "adapter=linear,adaptformer,lora",
            "bits=1,32",
            "train.epochs=1",
        ],
    ]
    command = r.choice(commands)
    where = [] if command[0] == "inspect" else ["--store", str(copy)]
    return Attempt([*command, *where], f"{command[:3]} {path.name}: {about}")


def listed(r: random.Random, place: Place) -> Attempt:
    """Edit a list file or an image of a benchmark."""
    copy = Path(shutil.copytree(place.tree, place.folder / "root"))
    task = copy / "svhn"
    files = sorted(task.rglob("*.png"))
    path = r.choice([*task.glob("*.txt"), *task.glob("*.txt"), r.choice(files)])
    if r.random() < 0.3 or path.suffix == ".png":
        if r.random() < 0.5 and path.suffix == ".png":
            data = path.read_bytes()
            at = r.randrange(len(data))
            path.write_bytes(
                r.choice(
                    [
                        data[:at],
                        data[:at] + r.randbytes(4) + data[at + 4 :],
                        b"<html>",
                        data[:20] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + data[28:],
                    ]
                )
            )
            about = f"bytes at {at}"
        else:
            about = damage(r, path)
    else:
        lines = path.read_text().splitlines()
        at = r.randrange(len(lines))
        line = r.choice(
            [
                *SNIPPETS[:40],
                *TEXTS,
                "x.png 9" + "9" * 5000,
                "/etc/passwd 0",
                "../x 1",
                "x.png 1e3",
                "x.png -1",
                "images/x\x1b[2J.png 0",
                "images/x.png 999999999",
                lines[0],
                " 0",
                "0",
            ]
        )
        lines[at] = line
        path.write_text("\n".join(lines), errors="surrogatepass")
        about = f"line {at + 1} {line[:40]!r}"
    arguments = r.choice(
        [
            ["data", "verify", "vtab_svhn", "--root", copy],
            ["data", "verify", "vtab_svhn", "--root", copy, "--json"],
            ["sweep", "--dry-run", *ONE[:1], "task=vtab_svhn", f"data.root={copy}", "scale=1"],
        ]
    )
    return Attempt([*map(str, arguments)], f"{arguments[:2]} {path.name}: {about}")


def checkpoint(r: random.Random, place: Place) -> Attempt:
    """A file of backbone weights that is none."""
    path = place.folder / f"w{r.choice(['.pth', '.pt', '.safetensors', '.npz', '.bin'])}"
    if r.random() < 0.6:
        path.write_bytes(b"x" * 64)
        about = damage(r, path)
    else:
        path.write_bytes(
            r.choice(
                [
                    b"",
                    b"<html>",
                    b"PK\x03\x04" + r.randbytes(50),
                    r.randbytes(500),
                    (2**62).to_bytes(8, "little") + b"{}",
                    (2).to_bytes(8, "little") + b"{}",
                    b"\x80\x02cposix\nsystem\n(S'true'\ntR.",
                ]
            )
        )
        about = "foreign content"
    tiny = [
        "backbone=timm",
        "backbone.name=vit_tiny_patch16_224",
        "backbone.image_size=32",
        f"backbone.weights={path}",
    ]
    return Attempt(["sweep", "--dry-run", *ONE, *tiny], f"{path.name} {about}")


def name(r: random.Random, place: Place) -> Attempt:  # noqa: PLR0912 - a list of ways
    """Names of every byte class, where names are given."""
    raw = b"".join(r.choice(BYTES) for _ in range(r.randrange(1, 8)))
    text = os.fsdecode(raw) if r.random() < 0.7 else r.choice(TEXTS)
    text = text.replace("\0", "").replace("\ud800", "")  # which no file can be named
    if len(text) > 200 and r.random() < 0.9:
        text = text[:200]
    folder = place.folder / (text.replace("/", "") or "x")
    if len(os.fsencode(folder.name)) > 250 or folder.name in (".", ".."):
        folder = place.folder / "x"
    how = r.choice(["store", "task", "run", "file", "ls", "root", "filter", "out", "in store", "own"])
    if how == "store":
        arguments = [r.choice(["report", "sweep"]), "--store", folder]
        if arguments[0] == "sweep":
            arguments += ["--dry-run", *ONE]
    elif how == "task":
        arguments = ["data", "info", text]
    elif how == "run":
        arguments = ["eval", text, "--store", place.store]
    elif how == "file":
        folder.write_bytes(b"x")
        arguments = [r.choice(["inspect", "eval"]), folder]
    elif how == "ls":
        arguments = ["ls", "tasks", text]
    elif how == "root":
        arguments = ["data", "verify", "vtab_svhn", "--root", folder]
        folder.mkdir()
    elif how == "filter":
        arguments = ["report", "--store", place.store, "--filter", f"task={text}"]
    elif how == "out":
        arguments = ["report", "--store", place.store, "--out", folder / "x"]
    elif how == "own":
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True)
            for image in sorted(place.tree.rglob("*.png"))[:4]:
                shutil.copy(image, folder / label / image.name)
        os.rename(folder / "a", folder / folder.name)
        arguments = ["sweep", "--dry-run", *ONE[:1], "task=tree", f"data.root='{folder}'", "scale=1"]
        if r.random() < 0.5:
            arguments = ["data", "verify", "tree", "--root", folder]
    else:
        copy = Path(shutil.copytree(place.store, place.folder / "store"))
        run = r.choice(sorted(copy.glob("*/row.json"))).parent
        os.rename(run, copy / folder.name)
        arguments = [
            *r.choice([["report"], ["store", "check"], ["store", "check", "--repair"]]),
            "--store",
            copy,
        ]
    return Attempt([*map(str, arguments)], f"{how} {text[:40]!r}")
