"""Hostile inputs, made by seed: settings out of range, edited and foreign files, and names of every byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote

import numpy as np
from safetensors.numpy import save

from petl_bench.config import CONF_DIR, keys
from petl_bench.data.manifest_files import MANIFEST_DIR

ONE = ["sweep=none", "task=digits", "scale=1", "train.epochs=1", "protocol=fixed", "bits=1", "hidden=4"]
NUMBERS = [
    *(
        "-1",
        "0",
        "1",
        "2",
        "0.5",
        "-0.0",
        "1e-320",
        "1e20",
        "1e300",
        "1e308",
        "-1e308",
        "1e999",
        "inf",
        "-inf",
        "nan",
    ),
    *(
        "true",
        "null",
        "???",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "9" * 5000,
    ),
    *("0x10", "0b1", "1_000", "1e5", "1000000", "99999999999999999999"),
]
TEXTS = [
    *(
        "",
        "''",
        "x",
        "a b",
        "[]",
        "{}",
        "[[]]",
        "[1,x]",
        "{a:1}",
        "{a:{b:[1,2]}}",
        "[" * 400 + "]" * 400,
        "x" * 100_000,
    ),
    *(
        "range(1,inf)",
        "range(0,1,0)",
        "range(1,5)",
        "range(0,1e9)",
        "range(0,1,1e-9)",
        "glob(*)",
        "choice(1,2)",
    ),
    *(
        "interval(0,1)",
        "shuffle(1,2)",
        "sort(2,1)",
        "tag(a,1)",
        "int(x)",
        "float(1)",
        "json_str({})",
        "cast(1)",
    ),
    *(
        "${oc.env:HOME}",
        "${missing}",
        "${",
        "${oc.env:NOT_THERE}",
        "${hidden}",
        "\\",
        "'",
        '"',
        "\"a'",
        "%s",
        "{0}",
    ),
    *(
        "\x1b[2J",
        "a\nb",
        "a\rb",
        "a\x00b",
        "'\x1b]0;x\x07'",
        "\u202e",
        "\ufeff",
        "\ud800",
        "é",
        "日本",
        "🎉",
        "..",
        "/",
        "~",
    ),
    *(
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "cuda",
        "cpu",
        "cuda:99",
        "../../etc/passwd",
        "-",
        "--help",
        "=",
        "a=b",
    ),
]
SNIPPETS = [
    *(
        "",
        "a",
        "- a",
        "a: [",
        "a: {",
        "a: b: c",
        "\tx: 1",
        "a: *b",
        "a: &b",
        "a: &b [*b]",
        "!!python/object:os.system x",
    ),
    *(
        "!!binary x",
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "!!set {a}",
        "!!omap [a]",
        "!!null x",
        "!foo x",
        "%YAML 9.9",
    ),
    *(
        "? [a]\n: b",
        "<<: 1",
        "<<: [1]",
        "a: 1\na: 2",
        "a: ${b}",
        "a: ${a}",
        "a: ???",
        "name: 1",
        "name: null",
        "name: [x]",
    ),
    *(
        "defaults: 1",
        "defaults: [x]",
        "defaults: [{x: y}]",
        "defaults: [_self_, _self_]",
        "defaults:\n- nope: x",
    ),
    *(
        "a: 2001-01-01",
        "a: 9" + "9" * 5000,
        "1: 2",
        "null: 1",
        "[1]: 2",
        "a: \x00",
        "a: \x1b[2J",
        "\ufeffa: 1",
        "--- 1\n--- 2",
    ),
    *(
        "a: 'x",
        'a: "\\q"',
        "a: |\n x\n y",
        "...",
        "# @package foo",
        "a: 1e400",
        "a: .nan",
        "a: .inf",
        "a: -.inf",
        "a: 0o7",
    ),
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "[" * 5000,
    "{a: " * 500 + "1" + "}" * 500,
    "a: " + "x" * 200_000,
    "- " * 2000 + "x",
]
BYTES = [bytes([b]) for b in (*range(1, 47), *range(48, 256))]


@dataclass
class Place:
    """Folder of one input, and what its makers have at hand."""

    folder: Path
    store: Path
    """A finished store; makers copy of it what they change."""
    tree: Path
    """A benchmark task in VTAB's layout."""
    adapters: list[Path] = field(default_factory=list)


@dataclass
class Attempt:
    """A command with a hostile input."""

    arguments: list[str]
    about: str
    conf: Path | None = None
    manifests: Path | None = None


def setting(r: random.Random, place: Place) -> Attempt:
    key = r.choice(list(keys()))
    value = r.choice(NUMBERS if r.random() < 0.6 else TEXTS)
    near = [key.option] if key.option else []
    if r.random() < 0.2:
        value = ",".join([value, r.choice(NUMBERS)])
    over = [o for o in ONE if o.split("=")[0] != key.name]
    return Attempt(["sweep", "--dry-run", *over, *near, f"{key.name}={value}"], f"{key.name}={value[:50]!r}")


def grammar(r: random.Random, place: Place) -> Attempt:
    known = [k.name for k in keys()] + [
        "task",
        "adapter",
        "backbone",
        "head",
        "sweep",
        "train",
        "tuned",
        "protocol",
        "launcher",
        "quantizer",
    ]
    text = (
        r.choice(known)
        + r.choice(["=", "=", "=", "", "==", ":", "@x=", "@:x="])
        + "".join(
            r.choice([*TEXTS[:8], *"[](){},'\"\\$ \x1b", "1", "x", "range(1,3)"])
            for _ in range(r.randrange(6))
        )
    )
    return Attempt(["sweep", "--dry-run", *ONE[:1], text], text[:60])


def _edit(r: random.Random, text: str) -> tuple[str, str]:
    lines = text.splitlines() or [""]
    snippet = r.choice(SNIPPETS)
    at = r.randrange(len(lines))
    how = r.choice(["replace file", "insert", "value", "append", "drop", "nest"])
    if how == "replace file":
        lines = [snippet]
    elif how == "insert":
        lines.insert(at, snippet)
    elif how == "value":
        key = lines[at].split(":")[0]
        lines[at] = f"{key}: {r.choice([*NUMBERS, *SNIPPETS])}"
        snippet = lines[at]
    elif how == "append":
        lines.append(snippet)
    elif how == "drop":
        del lines[at]
    else:
        lines[at] = "  " + lines[at]
    return "\n".join(lines) + "\n", f"{how} line {at + 1} {snippet[:50]!r}"


def _damage(r: random.Random, path: Path) -> str:
    """Give a file another kind, another encoding, or a byte that is none of text."""
    how = r.choice(
        ["fifo", "zero", "giant", "dir", "missing", "empty", "binary", "utf16", "bom", "loop", "nul"]
    )
    text = path.read_text(errors="replace") if path.is_file() else ""
    path.unlink(missing_ok=True)
    if how == "fifo":
        os.mkfifo(path)
    elif how == "zero":
        path.symlink_to("/dev/zero")
    elif how == "giant":
        with path.open("wb") as file:
            file.truncate(10**12)
    elif how == "dir":
        path.mkdir()
    elif how == "empty":
        path.touch()
    elif how == "binary":
        path.write_bytes(r.randbytes(100))
    elif how == "utf16":
        path.write_text(text, encoding="utf-16")
    elif how == "bom":
        path.write_text(text, encoding="utf-8-sig")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "nul":
        path.write_text(text + "\0")
    return how


def conf(r: random.Random, place: Place) -> Attempt:
    copy = Path(shutil.copytree(CONF_DIR, place.folder / "conf"))
    files = sorted(copy.rglob("*.yaml"))
    path = r.choice(
        [
            copy / "config.yaml",
            copy / "sweep/none.yaml",
            copy / "train/pocket.yaml",
            copy / "protocol/fixed.yaml",
            copy / "backbone/pocket.yaml",
            copy / "quantizer/l1_median.yaml",
            copy / "head/linear.yaml",
            copy / "tuned/pocket.yaml",
            *files,
        ]
    )
    if r.random() < 0.2:
        about = _damage(r, path)
    else:
        text, about = _edit(r, path.read_text())
        path.write_text(text)
    group = path.parent.name
    chosen = [f"{group}={path.stem}"] if group not in ("conf", "sweep") else []
    over = [o for o in ONE if o.split("=")[0] != group]
    if group == "tuned":
        over = [o for o in over if not o.startswith("scale")]
    if group == "backbone":
        over.append("backbone.weights=random")
    arguments = ["sweep", "--dry-run", *over, *chosen]
    if r.random() < 0.1:
        arguments = ["ls", r.choice(["keys", "backbones", "train", "sweeps", "tuned", "protocols"])]
    return Attempt(arguments, f"{path.relative_to(copy)}: {about}", conf=copy)


def manifest(r: random.Random, place: Place) -> Attempt:
    copy = Path(shutil.copytree(MANIFEST_DIR, place.folder / "manifests"))
    path = r.choice([copy / "digits.yaml", *sorted(copy.glob("*.yaml"))])
    if r.random() < 0.2:
        about = _damage(r, path)
    else:
        text, about = _edit(r, path.read_text())
        path.write_text(text)
    arguments = r.choice([["ls", "tasks"], ["data", "info", path.stem], ["sweep", "--dry-run", *ONE]])
    return Attempt(arguments, f"{path.name}: {about}", manifests=copy)


def override(r: random.Random, place: Place) -> Attempt:
    path = place.folder / "sizes.yaml"
    path.write_text("vtab_svhn: {splits: {test: 20}}\n")
    if r.random() < 0.4:
        about = _damage(r, path)
    elif r.random() < 0.5:
        size = r.choice(NUMBERS + TEXTS[:30])
        about = f"test: {size[:40]}"
        path.write_text(f"vtab_svhn: {{splits: {{test: {size}}}}}\n", errors="surrogatepass")
    else:
        text, about = _edit(r, path.read_text())
        path.write_text(text)
    arguments = ["data", "verify", "vtab_svhn", "--root", place.tree, "--override", path]
    if r.random() < 0.5:
        arguments = [
            "sweep",
            "--dry-run",
            *ONE[:1],
            "task=vtab_svhn",
            f"data.root={place.tree}",
            f"data.override={path}",
            "scale=1",
        ]
    return Attempt([*map(str, arguments)], about)


def signed(metadata: list[tuple[str, str]], payload: bytes) -> bytes:
    """Return an adapter file with any metadata and a right checksum."""
    text = "&".join(f"{quote(key)}={quote(value, safe=':;,=@/|[]')}" for key, value in metadata)
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode() + payload).digest()).decode().rstrip("=")
    return bytes(
        save(
            {"payload": np.frombuffer(payload, np.uint8)}, metadata={"petl-bench": f"{text}&sha256={digest}"}
        )
    )


def taken_apart(data: bytes) -> tuple[list[tuple[str, str]], bytes]:
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["petl-bench"]
    return parse_qsl(text, keep_blank_values=True)[:-1], data[8 + length :]


METADATA = [
    *NUMBERS,
    *(t for t in TEXTS if "\ud800" not in t),
    "|",
    ";",
    "weight=1x1",
    "0-9999:a=1",
    "a=9999999999x9999999999@1",
    "\n",
    "none",
    "fp32",
    "adaptformer",
    "lora",
    "vtab_dtd",
    "(" * 3000,
    "[" * 300,
    "1" * 5000,
    "'a'*10**9",
    "__import__('os')",
]


def adapter(r: random.Random, place: Place) -> Attempt:
    source = r.choice(place.adapters)
    data = source.read_bytes()
    path = place.folder / "a.safetensors"
    how = r.random()
    if how < 0.2:
        path.write_bytes(data)
        about = _damage(r, path)
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


JSON = [
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    "",
    "x",
    "\x1b[2J",
    "a\nb",
    "\ud800",
    "\u202e",
    [],
    {},
    [1],
    {"a": 1},
    "x" * 100_000,
    "9" * 5000,
    0.3,
    2**63,
    float("nan"),
    float("inf"),
]


def stored(r: random.Random, place: Place) -> Attempt:
    """Edit a file of a store."""
    copy = Path(shutil.copytree(place.store, place.folder / "store"))
    run = r.choice(sorted(copy.glob("*/row.json"))).parent
    path = run / r.choice(["row.json", "row.json", "row.json", "spec.json", "search.json", "error.json"])
    if not path.exists():
        path.write_text('{"message": "x", "cause": "error"}')
    if r.random() < 0.25:
        about = _damage(r, path)
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
            about = _damage(r, path)
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
        about = _damage(r, path)
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


KINDS: dict[str, Callable[[random.Random, Place], Attempt]] = {
    "setting": setting,
    "grammar": grammar,
    "conf": conf,
    "manifest": manifest,
    "override": override,
    "adapter": adapter,
    "stored": stored,
    "listed": listed,
    "checkpoint": checkpoint,
    "name": name,
}
