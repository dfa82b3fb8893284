"""Model cards of exported runs: what a row states, and how the model is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping

from petl_bench.data import manifests
from petl_bench.types import ResultRow
from petl_bench.use.exporting import facts, model_arguments
from petl_bench.use.files import Trained

NAMES = {"safetensors": "model.safetensors", "torch": "model.pt2", "onnx": "model.onnx"}
"""Name in a repository of the file of each form that is one file."""
LIBRARIES = {"timm": "timm", "safetensors": "timm", "torch": "pytorch", "onnx": "onnx", "peft": "peft"}
"""Name on the hub of the library that each form is for."""
CHOICE = {
    "sealed": "hyper-parameters chosen on validation images; test images used once",
    "fixed": "hyper-parameters fixed beforehand; test images used once",
    "peek": "test images evaluated during the training; the accuracy is that of the last epoch",
}
"""Meaning of each protocol."""
_DOWNLOAD = 'file = huggingface_hub.hf_hub_download("{repo}", "{file}")'
LOADING = {
    "timm": ["import timm", 'model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()'],
    "safetensors": [
        "import huggingface_hub, json, safetensors.torch, timm",
        _DOWNLOAD,
        "model = timm.create_model({architecture!r}, num_classes={classes}, **{arguments})",
        "model.load_state_dict(safetensors.torch.load_file(file))",
    ],
    "torch": [
        "import huggingface_hub, torch",
        _DOWNLOAD,
        "model = torch.export.load(file).module()",
    ],
    "onnx": [
        "import huggingface_hub, onnxruntime",
        _DOWNLOAD,
        "model = onnxruntime.InferenceSession(file)",
    ],
    "peft": [
        "import peft, timm",
        "plain = timm.create_model({architecture!r}, pretrained=True, num_classes={classes}, **{arguments})",
        'model = peft.PeftModel.from_pretrained(plain, "{repo}").eval()',
    ],
}
"""Code that loads each form."""


def model_card(repo: str, form: str, trained: Trained, row: ResultRow) -> bytes:
    """Return the README.md of a repository on the hub that holds an exported run.

    Args:
        repo: name of the repository, "owner/name".
        form: form of the model, one of FORMS.
        trained: the adapter file.
        row: row of the run.
    """
    from huggingface_hub import EvalResult, ModelCardData

    score = EvalResult(
        task_type="image-classification",
        dataset_type=row.task,
        dataset_name=row.task,
        metric_type="accuracy",
        metric_value=round(row.acc, 6),
    )
    data = ModelCardData(
        model_name=repo.partition("/")[2],
        library_name=LIBRARIES[form],
        pipeline_tag="image-classification",
        tags=["petl-bench", row.adapter],
        license="other",
        eval_results=[score],
    )
    table = [f"| {name} | {_cell(text)} |" for name, text in _facts(trained, row).items()]
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {repo.partition('/')[2]}",
        "",
        f"A `{row.backbone}` with the adapter `{row.adapter}`, trained by petl-bench, in the form `{form}`.",
        "",
        "| Fact | Value |",
        "| :-- | :-- |",
        *table,
        "",
        "## Use",
        "",
        "```python",
        *loading(repo, form, trained),
        "```",
        "",
        *_notes(form, trained, row),
        "",
    ]
    return "\n".join(lines).encode()


def loading(repo: str, form: str, trained: Trained) -> list[str]:
    """Return the lines of code that load a form from the hub."""
    stated = facts(trained)
    known = {"repo": repo, "file": NAMES.get(form, ""), "arguments": model_arguments(trained.backbone)}
    return [line.format(**(stated | known)) for line in LOADING[form]]


def _facts(trained: Trained, row: ResultRow) -> dict[str, str]:
    """Return the facts of a run in words."""
    stated = facts(trained)
    manifest = manifests().get(row.task)
    title = f": {manifest.about['title']}" if manifest and "title" in manifest.about else ""
    sizes = {"adapter": row.bytes_adapter, "head": row.bytes_head, "container": row.bytes_overhead}
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    origins = {"scale": row.scale_from, "learning rate": row.lr_from}
    chosen = "; ".join(f"{name}: {origin}" for name, origin in origins.items() if origin)
    return {
        "Task": f"`{row.task}`{title}; {stated['classes']} classes",
        "Test accuracy": f"{100 * row.acc:.2f} % ({round(row.acc * row.n_test)} of {row.n_test} images)",
        "Protocol": f"`{row.protocol}`: {CHOICE[row.protocol]}",
        "Training": f"{row.n_train} images, {row.epochs} epochs, seed {row.seed}, {row.precision}",
        "Origin of the hyper-parameters": chosen or "not stated",
        "Backbone": f"`{stated['architecture']}` (`{row.backbone}`), SHA-256 `{row.backbone_sha256}`",
        "Adapter": f"`{row.adapter}`, hidden size {row.hidden}, {row.bits} bits, head `{row.head}`"
        + (f"; compressed after training by `{row.compress}`" if row.compressed_from else ""),
        "Adapter file": f"{row.bytes_file:,} bytes ({parts}); this repository holds an export in fp32",
        "Images": f"{stated['image_size']} pixels, `{stated['resize']}`, mean {stated['mean']}, "
        f"standard deviation {stated['std']}",
        "Run": f"`{row.run_id}`, petl-bench {row.version}, {row.finished_at}",
    }


def _notes(form: str, trained: Trained, row: ResultRow) -> list[str]:
    manifest = manifests().get(row.task)
    licence = manifest.about.get("licence", "") if manifest else ""
    images = f"those of the task are under: {licence}" if licence else "ask the owner of the images"
    weights = trained.backbone.weights
    own = form == "peft" and weights != "pretrained"
    return [
        *(["The backbone must have the weights with the SHA-256 above, which timm does not have.", ""] * own),
        "## Licence",
        "",
        "The weights of the backbone and the images of the task have licences of their own, which may "
        f"limit the use of this model. Images: {images}. Whoever publishes this repository states its "
        "licence here and above.",
    ]


def _cell(text: str) -> str:
    """Return a text for a cell of a table of Markdown."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def with_card(files: Mapping[str, bytes], form: str, card: bytes) -> dict[str, bytes]:
    """Return the files of a repository: the exported ones and the model card."""
    return {name or NAMES[form]: data for name, data in files.items()} | {"README.md": card}
