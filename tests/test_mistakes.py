"""Settings that go together, and mistakes in overrides: each named with what would be right."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from petl_bench.cli.idle import unused
from petl_bench.cli.progress import Progress, bar
from petl_bench.config import options, plan
from petl_bench.errors import UserError, counted
from petl_bench.store import Store
from petl_bench.types import AdapterSpec
from tests.conftest import error_of, json_lines, quickly
from tests.test_config import ONE, one


def test_settings_a_method_has_no_use_for_make_no_runs() -> None:
    runs = plan(["sweep=none", "task=digits", "adapter=linear", "bits=1,32", "hidden=8,16", "scale=1,2"]).runs
    assert [(r.hidden, r.scale, r.bits, r.quantizer) for r in runs] == [(0, 1.0, 32, "none")]


def test_without_quantization_there_is_no_quantizer() -> None:
    runs = plan([*ONE, "bits=32", "quantizer=minmax,l1_median"]).runs
    assert [r.quantizer for r in runs] == ["none"]
    runs = plan([*ONE, "bits=1", "quantizer=minmax,l1_median"]).runs
    assert [r.quantizer for r in runs] == ["minmax", "l1_median"]


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"bits is given twice.*bits=1,2"):
        plan([*ONE, "bits=1", "bits=2"])
    with pytest.raises(UserError, match=r"task is given twice: write task=digits,surfaces$"):
        plan(["task=digits", "task=surfaces"])
    with pytest.raises(UserError, match=r"sweep is given twice: choose one$"):
        plan(["sweep=demo", "sweep=none"])
    with pytest.raises(UserError, match=r"seed is given twice: write seed=1$"):
        plan(["seed=1", "seed=1"])


def test_a_pattern_without_glob_is_told_how_patterns_are_written() -> None:
    with pytest.raises(UserError, match=r"'task=glob\(pocket19_\*\)', which matches 19 names"):
        plan(["task=digits,pocket19_*"])


@pytest.mark.parametrize("levels", [17, 30, 60, 120, 300, 3000])
@pytest.mark.parametrize(("opening", "closing"), ["[]", ("{a:", "}"), ("1,[", "]")])
def test_a_value_that_is_nested_too_deeply_is_refused(opening: str, closing: str, levels: int) -> None:
    inner = opening.removeprefix("1,")
    value = opening + inner * levels + "1" + closing * (levels + 1)
    for key in ("adapter.dropout", "protocol.scales", "backbone.options.x"):
        with pytest.raises(UserError, match="is nested too deeply"):
            plan([*ONE, f"{key}={value}"])


def test_a_deleted_working_directory_is_named(tmp_path: Path) -> None:
    (folder := tmp_path / "gone").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        folder.rmdir()
        done = quickly("ls", "tasks")
    assert error_of(done) == "the working directory has been deleted: change to another one"


def test_settings_of_one_adapter_go_with_that_adapter() -> None:
    settings = {"dropout": 0.25, "share": 1, "allocation": "uniform"}
    assert one("adapter.dropout=0.25").adapter == AdapterSpec("adaptformer", settings)


def either(group: str) -> tuple[str, ...]:
    """Any option of a group will do as a suggestion."""
    return tuple(options(group))


MISTAKES = [
    # override, what the message must name, one of what it must suggest
    ("adapter=adaptfomer", "adaptfomer", ("adaptformer",)),
    ("hiden=3", "hiden", ("hidden",)),
    ("task=digit", "digit", ("digits",)),
    ("task=glob(zzz*)", "task=glob(zzz*)", ("matches nothing",)),
    ("train.epoch=3", "train.epoch", ("train.epochs",)),
    ("backbone=poket", "backbone", ("pocket",)),
    ("quantizer=l1_medain", "quantizer", ("l1_median",)),
    ("head=linaer", "head", ("linear",)),
    ("sweep=nope", "sweep", either("sweep")),
    ("sweep=none,demo", "sweep", ("one sweep",)),
    ("launcher=slurmy", "launcher", either("launcher")),
    ("protocol=sealedd", "protocol", either("protocol")),
    ("precision=fp64", "precision", ("fp32",)),
    ("bits=9", "bits", ("1 to 8",)),
    ("bits=0", "bits", ("1 to 8",)),
    ("bits=one", "bits", ("Integer", "whole number")),
    ("hidden=-1", "hidden", ("positive", "at least 1", "1 or more")),
    (
        "hidden=0",
        "hidden",
        ("positive", "at least 1", "1 or more"),
    ),  # adaptformer without hidden units is no adaptformer
    ("hidden=1.5", "hidden", ("Integer", "whole number")),
    ("seed=x", "seed", ("whole number",)),
    ("seed=-1", "seed", ("whole number",)),
    ("seed=1.0", "seed", ("whole number",)),
    ("adapter.foo=1", "adapter.foo", ("dropout",)),
    ("adapter.dropuot=0.2", "adapter.dropuot", ("adapter.dropout",)),
    ("adapter.dropout=yes", "adapter.dropout", ("float", "number")),
    ("adapter.name=lora", "adapter.name", ("adapter=lora",)),  # would run lora with adaptformer's settings
    ("protocol.name=sealed", "protocol.name", ("protocol=",)),  # rows would claim a protocol nobody followed
    ("launcher.name=slurm", "launcher.name", ("launcher=",)),
    ("task.classes=3", "task.classes", ("manifest", "task=")),  # facts of the data are no settings
    ("backbone.foo=1", "backbone.foo", ("backbone.",)),
    ("scale=0", "scale", ("positive",)),
    ("scale=nan", "scale", ("positive", "finite")),
    ("scale=inf", "scale", ("positive", "finite")),
    ("scale=big", "scale", ("Float", "number")),
    ("train.lr=-1", "train.lr", ("positive",)),
    ("train.lr=inf", "train.lr", ("positive", "finite")),
    ("train.epochs=0", "train.epochs", ("at least 1",)),
    ("train.batch_size=0", "train.batch_size", ("at least 1",)),
    ("train.drop_path=1", "train.drop_path", ("[0, 1)",)),
    ("train.weight_decay=-1", "train.weight_decay", ("0 or more", "positive")),
    ("train.weight_decay=nan", "train.weight_decay", ("0 or more", "positive", "finite")),
    ("train.warmup_epochs=-1", "train.warmup_epochs", ("0 or more", "at least 0")),
    ("train.warmup_lr=-1", "train.warmup_lr", ("0 or more", "positive")),
    ("train.min_lr=-1", "train.min_lr", ("0 or more", "positive")),
    ("train.schedule_lag=-1", "train.schedule_lag", ("0 or more", "at least 0")),
    ("train.normalization=imagnet", "train.normalization", ("imagenet",)),
    ("launcher.workers=two", "workers", ("Integer", "whole number")),
    ("launcher.wrokers=2", "launcher.wrokers", ("launcher.workers",)),
    ("train.lr=interval(0.1,1)", "interval()", ("train.lr=",)),
    ("task=shuffle(digits,surfaces)", "shuffle()", ("list the values",)),
    ("+extra=1", "+extra=1", ("KEY=VALUE",)),
    ("++seed=1", "++seed=1", ("KEY=VALUE",)),
    ("~seed", "~seed", ("KEY=VALUE",)),
    ("bits", "bits", ("KEY=VALUE", "missing EQUAL")),
    ("data.root=[", "data.root=[", ("KEY=VALUE",)),
    ("train=nope", "train 'nope'", either("train")),
    ("tuned=nope", "tuned 'nope'", either("tuned")),
    ("shots=x", "shots", ("whole number",)),
    ("split_seed=1.5", "split_seed", ("whole number",)),
    ("data.rot=x", "data.rot", ("data.root",)),
    ("data.cache_gb=0", "data.cache_gb", ("positive",)),
    ("data.cache_gb=inf", "data.cache_gb", ("positive",)),
    ("data.cache_gb=big", "data.cache_gb", ("number",)),
    ("data.cache_gb=null", "data.cache_gb", ("number",)),
    ("launcher.loaders=-2", "launcher.loaders", ("-1 or more",)),
    ("train.augment.crp=true", "train.augment.crp", ("train.augment.crop",)),
    ("train.augment.crop=maybe", "augment.crop", ("true or false",)),
    ("train.augment.mixup=-1", "train.augment.mixup", ("0 or more",)),
    ("train.augment.smoothing=2", "train.augment.smoothing", ("0 to 1", "[0, 1)", "[0, 1]")),
    ("train.augment.erasing=3", "train.augment.erasing", ("0 to 1", "[0, 1)", "[0, 1]")),
    ("protocol.scales=[0,1]", "protocol.scales", ("positive",)),
    ("protocol.scales=[1,x]", "scales", ("Float", "number")),
    ("protocol.lrs=[-1]", "protocol.lrs", ("positive",)),
    ("protocol.scales=[]", "scale", ("scales to choose from",)),
    ("protocol.scals=[1]", "protocol.scals", ("protocol.scales",)),
    ("tuned.tabels=[]", "tuned.tabels", ("tuned.tables",)),
]


@pytest.mark.parametrize(("override", "named", "suggested"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_named_with_what_would_be_right(
    override: str, named: str, suggested: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        plan([override] if override.startswith("sweep=") else ["sweep=none", override])
    message = str(caught.value)
    assert named in message
    assert any(text in message for text in suggested), message
    assert "\n" not in message
    assert not any(text in message for text in ("multirun", "pkg://", "hydra.conf", "object_type")), message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task=tree", "data.images=many"], "data.images"),
        (["task=tree", "data.images=0"], "data.images"),
        (["task=tree", "data.images=-3"], "data.images"),
        (["task=tree", "data.images=2.5"], "data.images"),
        (["task=tree", "split_seed=-1"], "split_seed"),  # no seed of a generator
        (["protocol=peek", "protocol.every=0"], "protocol.every"),
        (["protocol=peek", "protocol.every=-1"], "protocol.every"),
        (["protocol=peek", "protocol.every=1.5"], "every"),
        (["backbone=timm", "backbone.normalization=imagnet", "train.normalization=backbone"], "imagenet"),
    ],
)
def test_a_mistake_of_two_settings_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(["sweep=none", *overrides])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["adapter=lora", "adapter.dropout=2"], ("adapter lora", "dropout", "between 0 and 1")),
        (["adapter=scratch", "adapter.side=7"], ("adapter scratch", "side must be at least 8, not 7")),
        (["compress=loraquant", "bits=2"], ("compress=loraquant", "lora, hira or dora")),
    ],
)
def test_a_mistake_that_shows_when_a_model_is_built_is_named_by_a_dry_run_too(
    overrides: list[str], named: tuple[str, ...], tmp_path: Path
) -> None:
    command = [
        "sweep",
        "--store",
        tmp_path / "store",
        "sweep=none",
        "task=digits",
        "launcher=local",
        *overrides,
    ]
    executed, planned = quickly(*command), quickly(*command, "--dry-run")
    assert executed.returncode == 2
    message = error_of(planned)
    assert executed.stderr.splitlines()[-1] == f"error: {message}"
    assert all(text in message for text in named)


def test_a_setting_that_one_method_of_the_sweep_lacks_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match=r"adapter\.dropout.*linear"):
        plan(["task=digits", "bits=1", "adapter.dropout=0.3"])


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "run", "0 runs"),
        (1, "epoch", "1 epoch"),
        (2, "block", "2 blocks"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_one_thing_is_no_plural(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_what_a_path_names_is_said_where_it_is_not_what_was_expected(
    finished_store: Path, tmp_path: Path
) -> None:
    first, second, *_ = sorted(finished_store.glob("[!.]*/adapter.safetensors"))
    assert error_of(quickly("predict", first, second, tmp_path)) == (
        f"{second}: is an adapter file, not an image; predict takes one adapter, {first}"
    )
    assert error_of(quickly("show", finished_store)).endswith(
        f"it is a store: name one of its runs, for example {first.parent}"
    )
    assert error_of(quickly("show", "abc", "--store", tmp_path)) == (
        f"'abc' is no finished or failed run of store {tmp_path}, which holds none"
    )
    assert error_of(quickly("ls", "nonsense")).startswith(
        "Invalid value for 'kind': 'nonsense' is not one of"
    )


def test_several_files_are_inspected_at_once(finished_store: Path) -> None:
    files = sorted(finished_store.glob("[!.]*/adapter.safetensors"))  # of linear, too
    each = [json_lines(quickly("inspect", file, "--json").stdout)[0] for file in files]
    assert json_lines(quickly("inspect", *files, "--json").stdout) == each
    lines = quickly("inspect", *files).stdout.splitlines()
    assert [line for line in lines if line.endswith(".safetensors:")] == [f"{file}:" for file in files]


def test_data_root_has_no_effect_on_bundled_tasks() -> None:
    runs = plan([*ONE, "data.root=nowhere"]).runs
    assert unused(["data.root=nowhere"], runs) == [
        "data.root=nowhere has no effect: the images of bundled tasks are in the package"
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["statistics=short"], ["statistics=short has no effect: neither adapter nor head has codes"]),
        (["packing=raw"], ["packing=raw has no effect: neither adapter nor head has codes"]),
        (["packing=raw", "statistics=short", "head=bits2"], []),
        (
            ["quantizer=minmax", "head=bits2"],
            [
                "quantizer=minmax has no effect: the adapter is not quantized, or its compression fixes the "
                "codebook; heads have their own"
            ],
        ),
    ],
)
def test_settings_of_codes_are_named_where_nothing_has_codes(settings: list[str], said: list[str]) -> None:
    base = ["sweep=none", "task=digits", "adapter=lora", "bits=32", "scale=1"]
    assert unused(settings, plan([*base, *settings]).runs) == said


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("state", ["0 running, 0 bytes", "12 failed, 2 running, 1,220,060 bytes, 3 min left"])
def test_the_bar_of_a_sweep_is_one_line(
    width: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    progress = Progress({}, [], Store(tmp_path))
    monkeypatch.setattr(progress, "state", lambda: state)
    shown, _ = bar(progress)
    console = Console(width=width, file=io.StringIO())
    console.print(shown.get_renderable())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("\n") == 1
    assert state[:9] in text
