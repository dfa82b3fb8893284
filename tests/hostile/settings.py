"""Hostile settings: overrides out of range, and edited files of settings."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from petl_bench.config import CONF_DIR, keys
from petl_bench.data.manifest_files import MANIFEST_DIR
from tests.hostile.inputs import ONE, Attempt, Place, damage, edit
from tests.hostile.words import NUMBERS, TEXTS


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
        about = damage(r, path)
    else:
        text, about = edit(r, path.read_text())
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
        about = damage(r, path)
    else:
        text, about = edit(r, path.read_text())
        path.write_text(text)
    arguments = r.choice([["ls", "tasks"], ["data", "info", path.stem], ["sweep", "--dry-run", *ONE]])
    return Attempt(arguments, f"{path.name}: {about}", manifests=copy)


def override(r: random.Random, place: Place) -> Attempt:
    path = place.folder / "sizes.yaml"
    path.write_text("vtab_svhn: {splits: {test: 20}}\n")
    if r.random() < 0.4:
        about = damage(r, path)
    elif r.random() < 0.5:
        size = r.choice(NUMBERS + TEXTS[:30])
        about = f"test: {size[:40]}"
        path.write_text(f"vtab_svhn: {{splits: {{test: {size}}}}}\n", errors="surrogatepass")
    else:
        text, about = edit(r, path.read_text())
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
