"""Faults of plug-ins: files that cannot be read or imported, errors in them, and contradictions."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl_bench import plugins
from petl_bench.backbones.families import FAMILIES
from petl_bench.data.layouts import LAYOUTS
from petl_bench.errors import UserError
from petl_bench.launch import LAUNCH
from petl_bench.model.heads import HEADS
from petl_bench.plugins.modules import read_module
from petl_bench.quantizers import CODEBOOKS
from petl_bench.registry import Registry
from tests.conftest import error_of, json_lines, quickly
from tests.test_plugins import PLUGIN, RUN, _without_plugins_afterwards, also, copy  # noqa: F401 - fixtures


def test_a_file_that_cannot_be_imported_is_one_warning(copy: Path, tmp_path: Path) -> None:
    path = copy / "plugins" / "method.py"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "import nonsense_of_a_test", ""]))
    where = f"plug-in {path}, line {len(lines) + 1}: cannot be imported: ModuleNotFoundError: "
    base = ["sweep", "--config-dir", copy, "sweep=none", "task=digits", "scale=1", "train.epochs=1"]
    base += ["launcher=local", "--store", tmp_path / "store"]
    done = quickly(*base, "adapter=linear", "train=brief")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if where in line] == [
        f"warning: {where}No module named 'nonsense_of_a_test'"
    ]
    refused = quickly(*base, "adapter=plain_lora")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"error: unknown adapter 'plain_lora': {where}")


def test_what_a_file_prints_and_that_it_exits_disturbs_no_command(copy: Path, tmp_path: Path) -> None:
    (copy / "plugins" / "_shared.py").write_text("RATE = 0.5\nprint('hello')\n")
    command = ["sweep", "--config-dir", copy, *RUN, "launcher=local", "--store", tmp_path / "store", "--json"]
    path = copy / "plugins" / "method.py"
    text = path.read_text()
    path.write_text(text + "print('here')\n")
    ran = text.replace("    halved =", "    print('attached')\n    halved =")
    path.write_text(ran + "print('here')\n")
    done = quickly(*command)
    assert len(json_lines(done.stdout)) == 1, done.stderr
    assert {"hello", "here", "attached"} <= set(done.stderr.splitlines())
    path.write_text(text + "raise SystemExit(3)\n")
    said = error_of_run(quickly(*command, "seed=1"))
    line = len(text.splitlines()) + 1
    assert said == (
        f"error: unknown adapter 'plain_lora': plug-in {path}, line {line}: cannot be imported: SystemExit: 3"
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom (an error of the plug-in; "),
        ("config.nothing", "AttributeError: "),
        (
            "len(3)",
            "adapter plain_lora refuses its settings {'dropout': 0.0}: object of type 'int' has no len()",
        ),
    ],
)
def test_errors_of_a_plugin_name_its_file_and_line(copy: Path, statement: str, said: str) -> None:
    path = copy / "plugins" / "method.py"
    text = path.read_text().replace("    halved =", f"    {statement}\n    halved =")
    path.write_text(text)
    line = text.splitlines().index(f"    {statement}") + 1
    done = quickly("sweep", "--config-dir", copy, *RUN, "launcher=local", "--store", copy.parent / "store")
    assert f"plug-in {path}, line {line}: {said}" in error_of_run(done)
    (path).write_text(text.replace(f"    {statement}\n", "    return None\n"))
    done = quickly("sweep", "--config-dir", copy, *RUN, "launcher=local", "--store", copy.parent / "store")
    assert "adapter plain_lora: its function must return an Attached, not None" in error_of_run(done)


def error_of_run(done: subprocess.CompletedProcess[str]) -> str:
    """The last message of a sweep that was refused after its plan had been printed."""
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "a bug of petl-bench" not in last
    return last


STRAYS = {
    "conf/train/quick.yml": ("epochs: 1\n", "name it quick.yaml"),
    "data_manifests/more.yml": ("name: more\n", "name it more.yaml"),
    "data_manifests/deep/more.yaml": ("name: more\n", "put it into data_manifests/ itself"),
    "plugins/deep/more.py": ('HEADS.register("more")(None)\n', "put it into plugins/ itself"),
}


@pytest.mark.parametrize("name", STRAYS)
def test_files_without_effect_are_one_warning(copy: Path, name: str) -> None:
    text, said = STRAYS[name]
    also(copy, name, text)
    done = quickly("ls", "plugins", "--config-dir", copy)
    assert done.stderr.splitlines() == [f"warning: plug-in {copy / name}: is not read; {said}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ndef :\n", "line 2: cannot be imported: SyntaxError"),
        ("x = 1\n", "registers nothing by a literal name"),
        ("\udcff", "cannot be imported: UnicodeDecodeError"),
        (
            '@adapter("own", description="x", config=Config, group=GROUP)\ndef attach(): ...\n',
            "a fact of a method must be a literal of this file",
        ),
    ],
    ids=["syntax", "nothing", "no text", "no literal"],
)
def test_a_file_that_cannot_be_read_is_one_warning(copy: Path, text: str, said: str) -> None:
    path = copy / "plugins" / "other.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    command = ["sweep", "--config-dir", copy, *RUN, "--dry-run"]
    done = quickly(*command)
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if str(path) in line]
    assert warning.startswith("warning: plug-in ")
    assert said in warning
    if "own" in text:
        command = ["sweep", "--config-dir", copy, "adapter=own", "task=digits", "scale=1", "--dry-run"]
        assert said in error_of(quickly(*command))


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(["(", "[", "x=", "0", "\n", '"', "#", "\\"])).map(
        lambda parts: "".join(parts).encode()
    )
)
def test_a_file_of_any_bytes_is_read(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_bytes(content)
        module = read_module(path, "a")
    assert not module.fault or str(path) in module.fault


METHOD = (
    '@adapter("{}", description="A.", config=C, group="probe")\ndef attach(): ...\n@dataclass\nclass C: ...\n'
)
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a built-in adapter": (
        lambda copy: also(copy, "plugins/a.py", METHOD.format("lora")),
        "adapter 'lora' is built in: choose another name",
    ),
    "a built-in head": (
        lambda copy: also(copy, "plugins/a.py", 'HEADS.register("binary")(None)\n'),
        "head 'binary' is built in: choose another name",
    ),
    "a built-in quantizer": (
        lambda copy: also(copy, "plugins/a.py", 'CODEBOOKS.register("minmax")(None)\n'),
        "quantizer 'minmax' is built in: choose another name",
    ),
    "an adapter of its own": (
        lambda copy: also(copy, "plugins/a.py", METHOD.format("plain_lora")),
        "'plain_lora' is registered by",
    ),
    "a built-in task": (
        lambda copy: shutil.move(
            copy / "data_manifests/digits_again.yaml", copy / "data_manifests/digits.yaml"
        ),
        "there is a task 'digits' already",
    ),
    "a task for a built-in suite": (
        lambda copy: also(
            copy,
            "data_manifests/more.yaml",
            (PLUGIN / "data_manifests/digits_again.yaml")
            .read_text()
            .replace("garden", "pocket")
            .replace("digits_again", "more"),
        ),
        "suite 'pocket' is built in",
    ),
    "a built-in recipe": (
        lambda copy: also(copy, "conf/train/vtab.yaml", "epochs: 1\n"),
        "there is a train 'vtab' already",
    ),
    "an unknown group": (
        lambda copy: also(copy, "conf/trian/x.yaml", "epochs: 1\n"),
        "no group of options 'trian': did you mean 'train'",
    ),
    "a group of Python": (
        lambda copy: also(copy, "conf/adapter/x.yaml", "name: x\n"),
        "no group of options 'adapter'",
    ),
    "a file in no group": (
        lambda copy: also(copy, "conf/x.yaml", "a: 1\n"),
        "options are files conf/GROUP/NAME.yaml; known: ",
    ),
    "a bad recipe": (lambda copy: also(copy, "conf/train/x.yaml", "a: &b 1\n- 2\n"), "x.yaml"),
    "a bad manifest": (lambda copy: also(copy, "data_manifests/x.yaml", "name: y\n"), "x.yaml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused_with_their_file(copy: Path, case: str) -> None:
    change, said = REFUSED[case]
    change(copy)
    message = error_of(quickly("sweep", "--config-dir", copy, "task=digits", "scale=1", "--dry-run"))
    assert said in message
    assert str(copy) in message


@pytest.mark.parametrize(
    ("table", "registry"),
    [
        ("CODEBOOKS", CODEBOOKS),
        ("HEADS", HEADS),
        ("FAMILIES", FAMILIES),
        ("LAYOUTS", LAYOUTS),
        ("LAUNCH", LAUNCH),
    ],
)
def test_a_name_of_the_package_is_refused_in_every_registry(
    copy: Path, table: str, registry: Registry[object]
) -> None:
    plugins.use(())
    for number, name in enumerate([*registry]):
        (copy / "plugins" / "a.py").write_text("\n" * number + f'{table}.register("{name}")(None)\n')
        plugins.use([copy])
        with pytest.raises(UserError, match=f"a.py, line {number + 1}: {registry.kind} '{name}' is built in"):
            registry.get(name)
        plugins.use(())
        assert registry.get(name) is not None


def test_folders_that_are_no_plugin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    also(tmp_path, "flat/method.py", "")
    also(tmp_path, "two words/plugins/a.py", "")
    also(tmp_path, "other/plugin/plugins/__init__.py", "")
    said = {
        "nowhere": "no such folder; --config-dir DIR or $PETL_BENCH_CONFIG names another one",
        "empty": "holds none of the folders conf, data_manifests and plugins",
        "flat": "holds none of the folders conf, data_manifests and plugins; put method.py into plugins/",
        "two words": "a plug-in's name, that of its folder, has letters, digits, and . _ - only",
    }
    for folder, message in said.items():
        found = error_of(quickly("ls", "adapters", "--config-dir", tmp_path / folder))
        assert found == f"--config-dir {tmp_path / folder}: {message}"
    assert quickly("ls", "train", PETL_BENCH_CONFIG=f"{os.pathsep}{PLUGIN}{os.pathsep}").returncode == 0
    both = os.pathsep.join([str(PLUGIN), str(tmp_path / "other" / "plugin")])
    assert "two plug-ins have one name" in error_of(quickly("ls", "train", PETL_BENCH_CONFIG=both))
