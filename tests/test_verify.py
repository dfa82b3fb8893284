"""`petl-bench data verify`: a clean tree passes with its facts, whole roots, single tasks, second calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from petl_bench.config import plan_task
from petl_bench.data import manifests, resolve
from petl_bench.data.file_facts import read_facts
from petl_bench.types import Cache
from tests.conftest import error_of
from tests.trees import picture, save
from tests.verifying import (
    BOTH,
    TEST,
    TESTS,
    TRAIN,
    TRAINS,
    VAL,
    VALS,
    copy_of,
    edit,
    found,
    kinds,
    label,
    new_image,
    settings,
    verify,
)

TWICE = 2 * (TRAINS + VALS)
"""Training images: those of train and val, and the same once more in the folder of both."""
FILES = TWICE + TESTS
"""Images of dtd."""

# A clean tree


def test_a_clean_tree_passes_and_its_facts_are_told(clean: tuple[Path, Path], warm: Path) -> None:
    root, override = clean
    tasks = {}
    for name in ("vtab_dtd", "vtab_svhn"):
        problems, summary = found(verify(name, root, warm, override))
        assert problems == []
        assert {k: v for k, v in summary.items() if k != "tasks"} == {
            "summary": True,
            "suite": name,
            "root": str(root),
            "ok": True,
            "problems": 0,
        }
        (tasks[name],) = summary["tasks"]
    expected = {
        # tests.trees saves JPEG at quality 90.
        "vtab_dtd": {"images": FILES, "formats": {"JPEG": FILES}, "jpeg_quality": [90, 90, 90]},
        "vtab_svhn": {"images": TWICE + 20, "formats": {"PNG": TWICE + 20}, "jpeg_quality": []},
    }
    for name, facts in expected.items():
        settled = resolve(plan_task(name, settings(root, override)), Cache(str(warm)))
        facts |= {"task": name, "fingerprint": settled.fingerprint, "notes": [], "problems": 0}
        facts |= {"modes": {"RGB": facts["images"]}, "sizes": ["24x24"] * 3, "classes": [], "left_out": []}
        assert tasks[name] == facts
    assert tasks["vtab_dtd"]["fingerprint"] != tasks["vtab_svhn"]["fingerprint"]


def test_the_table_has_a_line_for_each_task(clean: tuple[Path, Path], warm: Path) -> None:
    root, override = clean
    done = verify("vtab_[ds][tv]*", root, warm, override, json=False)  # a pattern: dtd and svhn
    assert (done.returncode, done.stderr) == (0, "")
    for name, formats, quality in (("vtab_dtd", "JPEG 100%", "90..90..90"), ("vtab_svhn", "PNG 100%", "-")):
        fingerprint = resolve(plan_task(name, settings(root, override)), Cache(str(warm))).fingerprint
        (line,) = [line for line in done.stdout.splitlines() if name in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[0] == name
        assert cells[2:] == [formats, quality, fingerprint[:16], "0"]


def test_the_fingerprint_is_of_the_content_alone(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    def fingerprint() -> str:
        return found(verify("vtab_dtd", root, warm, override))[1]["tasks"][0]["fingerprint"]

    override = clean[1]
    root = copy_of(clean[0], tmp_path / "elsewhere")
    first = resolve(plan_task("vtab_dtd", settings(*clean)), Cache(str(warm))).fingerprint
    assert fingerprint() == first
    new_image(root / "dtd/images/test/000003.jpg")
    assert fingerprint() != first
    edit(root / "dtd/test.txt", lambda lines: [label(lines[0], 1), *lines[1:]])
    second = fingerprint()
    edit(root / "dtd/test.txt", lambda lines: [label(lines[0], 2), *lines[1:]])
    assert fingerprint() != second


def test_formats_and_quality_are_told_where_they_are_mixed(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    # As in a copy whose PNG files someone made JPEG files of: 10 files at quality 35, one at 98, 20 PNG.
    root = copy_of(clean[0], tmp_path / "root")
    task = root / "dtd"
    for number, quality in enumerate([35] * 10 + [98]):
        path = task / f"images/test/{number:06d}.jpg"
        path.unlink()
        picture(0, 5000 + number, 24).save(path, quality=quality)
    for number in range(20, 40):
        old = task / f"images/test/{number:06d}.jpg"
        save(Image.open(old), old.with_suffix(".png"))
        old.unlink()
    edit(
        task / "test.txt",
        lambda lines: lines[:20] + [line.replace(".jpg", ".png") for line in lines[20:40]] + lines[40:],
    )
    problems, summary = found(verify("vtab_dtd", root, warm, clean[1]))
    assert problems == []
    assert summary["tasks"][0]["formats"] == {"JPEG": FILES - 20, "PNG": 20}
    assert summary["tasks"][0]["jpeg_quality"] == [35, 90, 98]
    human = verify("vtab_dtd", root, warm, clean[1], json=False).stdout
    assert f"JPEG {100 * (FILES - 20) / FILES:.0f}%, PNG {2000 / FILES:.0f}%" in human
    assert "35..90..98" in human


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_is_what_pillow_was_told(tmp_path: Path, mode: str) -> None:
    image = picture(3, 7, 16).convert(mode)
    estimates = {}
    for quality in range(1, 101):
        image.save(tmp_path / f"{quality}.jpg", quality=quality)
        estimates[quality] = read_facts(tmp_path / f"{quality}.jpg", decode=False).quality
    assert estimates == {quality: quality for quality in range(1, 101)}


def test_a_link_within_the_root_and_hidden_files_are_no_fault(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root = copy_of(clean[0], tmp_path / "root")
    linked = root / "dtd/images/train800val200/000005.jpg"
    linked.unlink()
    linked.symlink_to("../train800/000005.jpg")
    (root / "dtd/images/test/.DS_Store").write_text("of a file manager")
    assert kinds(verify("vtab_dtd", root, warm, clean[1])) == set()


# The whole root


def test_an_empty_root_is_said(tmp_path: Path, warm: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for suite in ("vtab", "fgvc", "vtab_dtd"):
        problems, summary = found(verify(suite, root, warm))
        (problem,) = problems
        assert (problem["kind"], problem["path"]) == ("empty_folder", str(root))
        assert f"data prepare {suite} " in problem["message"]
        assert summary["tasks"] == []
    human = verify("vtab", root, warm, json=False)
    assert human.returncode == 1
    assert f"empty_folder: {root}: the folder is empty" in human.stdout


def test_the_folder_of_another_suite_is_said(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    (few / "few-shot/oxford-pets/annotations").mkdir(parents=True)
    for suite, other, root in (
        ("fgvc", "vtab", clean[0]),
        ("vtab", "fgvc", few),
        ("vtab_cifar", "fgvc", few),
    ):
        (problem,), _ = found(verify(suite, root, warm))
        assert (problem["kind"], problem["path"]) == ("wrong_suite", str(root))
        assert f"no folder of {suite} but those of {other}" in problem["message"]
        assert f"data verify {other}" in problem["message"]


def test_each_absent_task_of_a_suite_is_said(clean: tuple[Path, Path], warm: Path) -> None:
    problems, summary = found(verify("vtab", clean[0], warm, clean[1]))
    vtab_tasks = {name for name, manifest in manifests().items() if manifest.suite == "vtab"}
    assert {p["task"] for p in problems} == vtab_tasks - {"vtab_dtd", "vtab_svhn"}
    assert {(p["kind"], p["path"]) for p in problems} == {("missing_folder", str(clean[0]))}
    for problem in problems:
        assert f"looked for {manifests()[problem['task']].folders[0]}" in problem["message"]
    assert {task["task"]: task["problems"] for task in summary["tasks"]} == {
        name: 0 if name in ("vtab_dtd", "vtab_svhn") else 1 for name in vtab_tasks
    }


def test_what_cannot_be_verified_is_refused(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    root, override = clean
    assert "did you mean 'vtab'" in error_of(verify("vtap", root, warm))
    assert "did you mean 'vtab_dtd'" in error_of(verify("vtab_ddt", root, warm))
    assert "bundled and has no files" in error_of(verify("digits", root, warm))
    assert f"{tmp_path}/nowhere: no such folder" in error_of(verify("vtab", tmp_path / "nowhere", warm))
    assert f"{override}: no such folder" in error_of(verify("vtab", override, warm))  # a file
    message = error_of(verify("vtab_dtd", root, override, override))  # a file in the cache's place
    assert f"data.cache={override}: cannot be created" in message


def test_a_bad_override_file_is_refused(clean: tuple[Path, Path], warm: Path, tmp_path: Path) -> None:
    cases = (
        ("vtab_dtt: {splits: {test: 94}}", "'vtab_dtt' is no task"),
        ("vtab_dtd: {splits: {test: 0}}", "positive"),
        ("vtab_dtd: {classes: 46}", "expected `splits"),
        ("vtab_dtd: {splits: {trainval: 1000}}", "sizes of train, val, test"),
        ("[", "not valid YAML"),
    )
    for number, (content, message) in enumerate(cases):
        file = tmp_path / f"{number}.yaml"  # a command reads its override file once
        file.write_text(content)
        said = error_of(verify("vtab_dtd", clean[0], warm, file))
        assert said.startswith(f"data.override={file}")
        assert message in said


def test_the_manifests_sizes_hold_without_an_override(clean: tuple[Path, Path], warm: Path) -> None:
    problems, _ = found(verify("vtab_dtd", clean[0], warm))
    assert {problem["kind"] for problem in problems} == {"count"}
    found_and_right = {  # arXiv 1910.04867: 1880 test images of dtd in VTAB-1K
        TRAIN: (TRAINS, 800),
        VAL: (VALS, 200),
        BOTH: (TRAINS + VALS, 1000),
        TEST: (TESTS, 1880),
    }
    messages = {problem["split"]: problem["message"] for problem in problems}
    assert messages.keys() == found_and_right.keys()
    for split, (count, right) in found_and_right.items():
        assert f"{count} images, it should be {right}" in messages[split]


def test_people_are_told_the_first_faults_and_how_many_more(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    for number in range(30, 42):
        (root / f"dtd/images/test/{number:06d}.jpg").unlink()
    (root / "dtd/images/val200/000000.jpg").unlink()
    done = verify("vtab_dtd", root, warm, clean[1], json=False)
    assert done.returncode == 1
    assert done.stderr == f"13 problems in {root}\n"
    lines = [line for line in done.stdout.splitlines() if "missing_file" in line]
    shown = [line for line in lines if " test: missing_file: " in line]
    assert 1 <= len(shown) < 12
    for number, line in enumerate(shown, 30):
        assert f"{root}/dtd/images/test/{number:06d}.jpg: is not there" in line
        assert line.startswith("vtab_dtd ")
    assert sum("images/val200/000000.jpg" in line for line in lines) == 1
    assert f"... and {12 - len(shown)} more missing_file test" in done.stdout
