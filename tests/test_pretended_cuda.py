"""Runs on pretended GPUs (tests.pretended_cuda): devices, resuming, files, and waits for a GPU."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from petl_bench import device
from petl_bench.adapters import ADAPTERS
from petl_bench.errors import UserError
from tests import processes
from tests.conftest import LONG, json_lines, long, pick, quickly, rows_of
from tests.test_protocols import Tree, made

CALIBRATED = {"corda", "lt_sft"}
"""Methods whose choices depend on the last bits of sums over the training images."""
NOT_WITHIN_ONE_BACKBONE = "choose another adapter or backbone"
TOO_SMALL = "is out of range"
"""Settings that suit the larger matrices of the ViT."""
NOT_FROZEN = "precision=int8 needs a frozen backbone"


def objects(command: list[object]) -> list[dict[str, Any]]:
    """The JSON objects that a command prints, one a line."""
    return [json.loads(line) for line in processes.run(command, check=True).stdout.splitlines()]


FAMILIES, PRECISIONS = ("VisionTransformer", "SwinTransformer", "ConvNeXt"), ("fp32", "bf16", "int8")


def tried(family: str, precision: str) -> tuple[list[str], list[str]]:
    """Methods that are interrupted, resumed and compared with the CPU, and those that make a step at most.

    `make test-long` tries all methods in the first way everywhere. `make test` tries all so on a ViT in fp32;
    in each other case one so, and a quarter of all in the second way: each method in two of the eight cases.
    """
    names, number = list(ADAPTERS), 3 * FAMILIES.index(family) + PRECISIONS.index(precision)
    if LONG or number == 0:
        return names, []
    return [names[4 * number]], [name for name in names[number % 4 :: 4] if name != names[4 * number]]


@pytest.mark.parametrize(
    ("family", "precisions"),
    [(FAMILIES[0], PRECISIONS[:1]), (FAMILIES[0], PRECISIONS[1:]), *((f, PRECISIONS) for f in FAMILIES[1:])],
)
def test_every_method_runs_on_the_second_gpu_as_on_the_cpu(
    family: str, precisions: tuple[str, ...], tmp_path: Path
) -> None:
    """Trained, interrupted, resumed, packed, reloaded and evaluated; nothing is ever on the first GPU.

    Those that are not tried as a whole are trained for one step, packed, reloaded and evaluated.
    """
    names = {precision: tried(family, precision) for precision in precisions}
    command = [sys.executable, "-m", "tests.on_cuda", tmp_path, family, json.dumps(names)]
    found = {(result.pop("precision"), result.pop("method")): result for result in objects(command)}
    assert list(found) == [
        (precision, name) for precision in precisions for name in (*names[precision][0], *names[precision][1])
    ]
    for (precision, name), result in found.items():
        assert "error" not in result, f"{name}: {result['error']}"
        if reason := result.get("refused", ""):
            assert family != "VisionTransformer" or precision == "int8", (name, reason)
            known = (NOT_WITHIN_ONE_BACKBONE, NOT_FROZEN, TOO_SMALL)
            assert any(why in reason for why in known), (name, reason)
            continue
        assert result["waits"] == {}, name
        if name not in names[precision][0]:
            assert (result["steps"], result["images"]) == (1, 2), name
            continue
        # The second epoch alone, after another one if the method trains before it chooses what to update.
        assert result["steps"] == 2, name
        assert result["same_length"], name
        tolerance = 1e-5 if precision == "fp32" and name not in CALIBRATED else 0.02
        for one, other in result["losses"]:
            assert one == pytest.approx(other, rel=tolerance), name
        if precision == "fp32":  # lower ones are rounded in other places on a CPU
            assert result["same_file"] or name in CALIBRATED, name
            assert result["same_classes"], name


def scene(name: str, folder: Path) -> dict[str, Any]:
    """Return the findings of a scene of tests.gpu_scenes, computed in a process of its own."""
    (found,) = objects([sys.executable, "-m", "tests.gpu_scenes", name, folder])
    return found


def test_augmentation_stays_on_the_gpu_and_resumes(tmp_path: Path) -> None:
    """With loaders, without, and resumed: the same losses, no wait in a step, and the CPU's pixels."""
    found = scene("augmented", tmp_path)
    assert found["waits"] == {}
    assert found["losses"][0] == found["losses"][1] == found["losses"][2]
    assert len(found["losses"][0]) == 2
    assert found["on_both"][0] == pytest.approx(found["on_both"][1], rel=1e-5)  # other sums, equal pixels


def test_erasing_on_a_gpu_has_the_areas_of_the_cpu_and_normal_numbers(tmp_path: Path) -> None:
    found = scene("erased", tmp_path)
    assert found["device"] == "cuda:1"
    assert found["same_areas"]
    assert min(found["erased"]) > 0
    error = found["numbers"] ** -0.5  # standard errors of a normal sample: 1 and 1 / sqrt(2) of this
    assert abs(found["mean"]) < 4 * error
    assert abs(found["std"] - 1) < 4 * error


def test_looking_for_gpus_opens_none(tmp_path: Path) -> None:
    found = scene("looked_for", tmp_path)
    assert found["answers"] == [["cuda:0", "cuda:1"], "cuda:0", "cuda:1", "bf16", "Pretended GPU"]
    absent, failed = found["refused"].splitlines()
    assert absent == "launcher.device=cuda:2: torch has no such device here; use auto or cpu"
    reason = "CUDA error: an illegal memory access was encountered"
    assert failed.startswith(f"launcher.device=cuda:1: this process cannot use it ({reason}); use another ")
    assert (found["opened"], found["later"]) == ([], [1])


def test_float32_is_not_rounded_and_the_row_says_so(tmp_path: Path) -> None:
    """The GPU of the run is the current one, too: without it, threads and libraries would open the first."""
    found = scene("kernels_named", tmp_path)
    assert found.pop("current") == 1
    assert found == {"before": "CUDA 9.0, TF32 in convolutions", "in a run": "CUDA 9.0, no TF32"}


@pytest.mark.parametrize(("visible", "warned"), [(None, True), ("0", True), ("", False), ("-1", False)])
def test_a_gpu_that_torch_does_not_use_is_told(
    visible: str | None, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any device file stands for that of a GPU; what is hidden on purpose is not told."""
    if device.find_device("auto") != "cpu":
        pytest.skip("torch uses a GPU here")
    monkeypatch.setattr(device, "_GPU_FILES", ("/dev/nul[l]",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.find_device("auto") == "cpu"
    said = device.unused_gpu("cpu")
    assert said.startswith("this machine shows a GPU (/dev/null), but torch does not use it") == warned
    assert bool(said) == warned
    assert not device.unused_gpu("cuda:0")


def test_a_device_that_is_not_there_is_refused_with_the_reason_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(
        UserError, match=r"launcher.device=cuda: .*\(torch .* is built without CUDA and ROCm\)"
    ):
        device.find_device("cuda")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return made(tmp_path_factory.mktemp("tree"), {"train": 8, "val": 8, "test": 64})


def on_gpu(facts: dict[str, Any], *arguments: object) -> subprocess.CompletedProcess[str]:
    """`petl-bench ARGUMENTS` on pretended GPUs; the last line of stderr names those that were opened."""
    command = [sys.executable, "-m", "tests.cli_on_cuda", json.dumps(facts), *map(str, arguments)]
    return processes.run(command, timeout=None)


def settings(tree: Tree, store: Path, **changes: object) -> list[object]:
    one = {"adapter": "lora", "protocol": "fixed", "scale": 1, "train__batch_size": 8, "precision": "bf16"}
    return ["sweep", "--store", store, *tree.settings(**one | changes)]


def test_a_pool_runs_on_gpus_that_its_parent_never_opens(tree: Tree, tmp_path: Path) -> None:
    done = on_gpu({"allowed": [1]}, *settings(tree, tmp_path, launcher="pool", launcher__device="cuda:1"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("opened: []\n")
    row = pick(tmp_path, status="done")
    assert (row["device"], row["kernels"], row["precision"]) == ("Pretended GPU", "CUDA 9.0, no TF32", "bf16")


def test_after_an_error_of_the_gpu_this_process_runs_nothing_more(tree: Tree, tmp_path: Path) -> None:
    """Such an error stays with the process: without the other runs tried, the same command continues."""
    failing = {"aten::_fused_adamw_": "CUDA error: unspecified launch failure"}
    command = settings(tree, tmp_path, launcher__device="cuda:1", seed="0,1")
    done = on_gpu({"allowed": [1], "failing": failing}, *command)
    assert done.returncode == 2
    assert (
        "launcher.device=cuda:1: failed (RuntimeError: CUDA error: unspecified launch failure)" in done.stderr
    )
    assert "launcher=pool replaces such a process" in done.stderr
    assert len(list(tmp_path.glob("*/error.json"))) == 1
    assert not list(tmp_path.glob("*/row.json"))
    assert on_gpu({"allowed": [1]}, *command).returncode == 0
    assert len(list(tmp_path.glob("*/row.json"))) == 2


def test_a_process_is_replaced_once_its_gpu_is_free(tree: Tree, tmp_path: Path) -> None:
    """On a GPU that serves one process at a time, where every process of the pool meets an error."""
    failing = {"aten::_fused_adamw_": "CUDA error: unspecified launch failure"}
    facts = {"allowed": [1], "failing": failing, "exclusive": str(tmp_path / "lock")}
    more = {"launcher": "pool", "launcher__device": "cuda:1", "launcher__retries": 1, "seed": "0,1"}
    done = on_gpu(facts, *settings(tree, tmp_path / "store", **more))
    assert done.returncode == 1, done.stderr
    assert "no new process can use it" not in done.stderr
    assert len(list((tmp_path / "store").glob("*/error.json"))) == 2


@long
def test_the_other_runs_of_a_job_get_a_new_process_after_an_error_of_the_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu_scenes", "job_after_a_failure", tmp_path]
    # No fork: a process that has trained must begin others anew.
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"causes": ["device", ""], "done": [False, True]}


def test_commands_end_with_the_reason_after_an_error_of_the_gpu(tree: Tree, tmp_path: Path) -> None:
    """Not with a bug of the program, and not with the same error for every other run."""
    assert quickly(*settings(tree, tmp_path, precision="fp32", seed="0,1")).returncode == 0
    failing = {"aten::argmax": "CUDA error: an illegal memory access was encountered\nFor debugging ..."}
    command = ("eval", "--all", "--store", tmp_path, "--device", "cuda:1")
    done = on_gpu({"allowed": [1], "failing": failing}, *command)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert error == (
        "error: the GPU: failed (CUDA error: an illegal memory access was encountered), and this process can "
        "no longer use it; run the same command again, in a new process"
    )


def test_the_plan_names_the_gpu(tree: Tree, tmp_path: Path) -> None:
    command = settings(tree, tmp_path, launcher__device="cuda:1", precision="auto")
    done = on_gpu({}, *command, "--dry-run")
    assert "device: cuda:1 (Pretended GPU), precision bf16\n" in done.stdout
    assert re.search(r"memory: a run needs about 0\.\d GB \(lora\) of the 85\.9 GB of cuda:1\n", done.stdout)
    assert done.stderr.endswith("opened: []\n")


@long
@pytest.mark.parametrize("how", ["ptq", "compeft", "loraquant", "bitdelta"])
def test_a_run_is_compressed_on_a_gpu(how: str, tree: Tree, tmp_path: Path) -> None:
    trained = {"adapter": "full" if how == "bitdelta" else "lora", "bits": 32, "launcher__device": "cuda:1"}
    done = on_gpu({"allowed": [1]}, *settings(tree, tmp_path, **trained, precision="fp32"), "--json")
    run = json_lines(done.stdout)[0]["run_id"]
    more = ["launcher=local", "launcher.device=cuda:1", *(["--bits", "2"] if how == "ptq" else [])]
    done = on_gpu({"allowed": [1]}, "compress", run, *more, "--how", how, "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {row.get("device") for row in rows_of(tmp_path)} == {"Pretended GPU"}
    assert len(rows_of(tmp_path)) == 2


@long
def test_bench_measures_a_gpu() -> None:
    done = on_gpu({"allowed": [1]}, "bench", "--quick", "--device", "cuda:1", "train_step_bf16", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json_lines(done.stdout)
    assert line["device"] == "Pretended GPU"
    assert done.stderr.endswith("opened: [1]\n")


def test_int8_on_a_gpu_must_be_compiled(tree: Tree, tmp_path: Path) -> None:
    command = settings(tree, tmp_path, launcher__device="cuda:1", precision="int8")
    done = on_gpu({}, *command, "--dry-run")
    assert done.returncode == 2
    assert "error: precision=int8: on cuda:1 each product would be ten passes" in done.stderr
    assert (
        "use precision=bf16, launcher.compile=default, which joins them, or launcher.device=cpu"
        in done.stderr
    )
    assert on_gpu({}, *command, "launcher.compile=default", "--dry-run").returncode == 0


def test_a_sweep_warns_of_runs_that_lack_memory_and_tries_them(tree: Tree, tmp_path: Path) -> None:
    command = settings(tree, tmp_path, launcher__device="cuda:1")
    done = on_gpu({"allowed": [1], "free": 10**8}, *command)
    assert done.returncode == 0, done.stderr
    assert "warning: cuda:1: 0.1 GB are free, and lora on " in done.stderr


def test_several_runs_share_a_gpu(tree: Tree, tmp_path: Path) -> None:
    """Two processes on the second of two GPUs, each of which may use half of its free memory."""
    more = {"launcher": "pool", "launcher__device": "cuda:1", "launcher__workers": 2, "seed": "0,1"}
    done = on_gpu({"allowed": [1], "free": 2 * 10**8}, *settings(tree, tmp_path, **more))
    assert done.returncode == 0, done.stderr
    assert "warning: cuda:1: 0.1 GB are free for each of 2 runs, and lora on " in done.stderr
    assert len(list(tmp_path.glob("*/row.json"))) == 2


def test_eval_computes_on_a_gpu_and_states_its_tolerance(tree: Tree, tmp_path: Path) -> None:
    """A run of the CPU, evaluated there and on a GPU, whose sums may have other last bits; predictions."""
    assert quickly(*settings(tree, tmp_path, precision="fp32")).returncode == 0
    run = pick(tmp_path, status="done")["run_id"]
    for device_name, tolerance in (("cpu", 0), ("cuda:1", int(0.01 * 64))):
        done = on_gpu({"allowed": [1]}, "eval", run, "--store", tmp_path, "--device", device_name, "--json")
        assert done.returncode == 0, done.stderr
        (line,) = json_lines(done.stdout)
        assert (line["agrees"], line["tolerance"]) == (True, tolerance)
        assert done.stderr.endswith(f"opened: {[1] if device_name == 'cuda:1' else []}\n")
    PIL.Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    command = ("predict", run, tmp_path / "image.png", "--store", tmp_path, "--device", "cuda:1")
    done = on_gpu({"allowed": [1]}, *command)
    assert done.returncode == 0, done.stderr
    assert "convolutions: ieee, current: 1\n" in done.stderr
