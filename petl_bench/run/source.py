"""Digests of the source code that makes a run's numbers, by part: adapter, quantizer, head and training.

A digest is one of syntax trees. Comments, formatting, docstrings, type hints and texts of errors are left
out, and so are the names of files and the order of definitions; Python's version does not matter. For an
adapter, quantizer or head the trees are those of the statement that registers it and of all definitions that
this refers to, directly or not, in the modules of its kind. So the digest stays when a release adds methods,
moves code or explains it better, and changes with what a method computes. The training is the code that all
methods share, module by module, and so is the compression of trained adapters.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from petl_bench import plugins
from petl_bench.config import changed_file, group_config
from petl_bench.types import HEAD_QUANTIZER, ResultRow, RunSpec

PACKAGE = Path(__file__).parent.parent
TEXTS = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Texts of all modules, read when this process imports them: what is edited later is not what it executes."""

_BASE, _HEADS = "adapters/base", "model/heads"
_COMPRESSION = ("model/compression/", "run/compressing", "run/distillation")
_OTHERS = (_HEADS, *_COMPRESSION)
_OF_TRAINING = (
    *(_BASE, "backbones/", "data/decoded", "data/images", "data/resample", "initialization", "model/"),
    *("packing/", "run/calibration", "run/search", "run/training", "train/"),
)
MODULES = {
    "adapter": tuple(path for path in TEXTS if path.startswith("adapters/") and path != _BASE),
    "quantizer": tuple(path for path in TEXTS if path.startswith("quantizers/")),
    "head": (_HEADS,),
    "training": tuple(p for p in TEXTS if p.startswith(_OF_TRAINING) and not p.startswith(_OTHERS)),
    "compress": tuple(path for path in TEXTS if path.startswith(_COMPRESSION)),
}
"""Modules of each part."""
HELPERS = {"adapter": (), "quantizer": ("FakeQuantize", "JointStack", "stack_by_shape"), "head": ("build",)}
"""Definitions that belong to a part whatever its name, besides those that it refers to."""
DIGITS = 8
"""Hexadecimal digits of a digest."""
SAME_NUMBERS = {
    "61fb63d9": "304f46ab",  # adapter adapter_plus
    "1ce63006": "aa6b016a",  # adapter bitfit
    "67abdf28": "cd0d6ba9",  # adapter convpass
    "20fb04f6": "b9f66ab2",  # adapter fact_tt
    "1f29fd29": "a512108b",  # adapter full
    "bae7ec67": "f3dbad08",  # adapter krona
    "6ef5256e": "f086b936",  # adapter linear
    "142a3880": "3f841822",  # adapter lt_sft
    "b0ec0097": "9dcba847",  # adapter sketch
    "86e50efa": "18999c87",  # adapter soka
    "5c3817da": "d653bd87",  # adapter ssf
    "5b34fe49": "c696fd5e",  # adapter vpt_deep
    "01b31d31": "9875e260",  # adapter vpt_shallow
    "1696d385": "a6df6b15",  # head binary
    "d7ee2fa6": "50ec3ebf",  # head linear
    "b11fc6a3": "095799a1",  # quantizer l1_median
    "c0f4dc56": "e047d506",  # quantizer l1_median_500
    "d5210fdd": "460ab915",  # quantizer l1_median and l1_median_500
    "85181309": "ea335e62",  # quantizer lloyd_max
    "0f169a57": "a40a4c5d",  # quantizer l1_median and lloyd_max
    "554b1a60": "c4b702ef",  # quantizer minmax
    "be904e06": "033f2e34",  # quantizer l1_median and minmax
    "594f5cc7": "a61bb243",  # training
}
"""Digests of today's code that computes exactly the numbers of earlier code, and the digests of that code,
which rows keep. Only changes that leave all frozen adapter files and rows as they are have entries."""
FACTS = {"description", "unused"}
"""Arguments of decorators that decide no number: texts, and settings as specs already have them."""
UNREAD = {"annotation", "ctx", "kind", "msg", "returns", "type_comment", "type_params"}
"""Fields of syntax trees that decide no number: type hints, texts of assertions, and how code is written."""


def sources(spec: RunSpec) -> dict[str, str]:
    """Return the digests of the code that this process executes for a run, by part.

    The digest of a part that the run does not use is empty, for example that of the quantizer at 32 bits.
    """
    binary = bool(group_config("head", spec.head)["quantized"])
    quantizers = {spec.quantizer} - {"none"} | ({HEAD_QUANTIZER} if binary else set())
    return {
        "adapter": _method("adapter", spec.adapter.name),
        "quantizer": _method("quantizer", *sorted(quantizers)) if quantizers else "",
        "head": _method("head", spec.head),
        "training": _shared("training"),
    } | ({"compress": _shared("compress")} if spec.compressed else {})


def changed_parts(spec: RunSpec, row: ResultRow) -> list[str]:
    """Return the parts whose source is no longer that of a finished run.

    Nothing is known about rows of versions that did not keep digests, and about runs of plug-ins that are not
    in use.
    """
    now = {} if plugins.missing(row.plugins) else sources(spec)
    return [part for part, digest in now.items() if getattr(row, f"source_{part}") not in ("", digest)]


def other_makers(spec: RunSpec, row: ResultRow) -> list[str]:
    """Return what made a finished run and is another here: parts of the source code, and files of conf/.

    About runs of plug-ins that are not in use nothing is known.
    """
    if plugins.missing(row.plugins):
        return []
    parts = [f"the source code of its {part}" for part in changed_parts(spec, row)]
    return parts + sorted({changed_file(origin) for origin in (row.scale_from, row.lr_from)} - {""})


@dataclass(frozen=True)
class _Module:
    """The top-level statements of a module.

    Attributes:
        defined: statements by the name that they define; those that define none under the empty name.
        imports: module and name there, by imported name.
    """

    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def body(self) -> list[ast.stmt]:
        return [node for nodes in self.defined.values() for node in nodes]


@plugins.cached
def _plugged() -> Mapping[str, str]:
    """Return the texts of all modules of the plug-ins in use."""
    modules = ((plugin, module) for plugin in plugins.active() for module in plugin.modules)
    return {f"plugins/{plugin.name}/{module.path.stem}": module.text for plugin, module in modules}


def _modules(part: str) -> tuple[str, ...]:
    """Return the modules of a part, with those of plug-ins, which may register entries of any kind."""
    return (*MODULES[part], *_plugged())


def _text_of(path: str) -> str | None:
    return TEXTS.get(path) or _plugged().get(path)


def _module(path: str) -> _Module:
    return _parsed(_text_of(path) or "", path.rpartition("/")[0])


@cache
def _parsed(text: str, folder: str) -> _Module:
    """Return the statements of a module.

    Args:
        text: its source.
        folder: folder of the modules that it imports by relative names.
    """
    tree, found = ast.parse(text), _Module()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level or (node.module or "").startswith("petl_bench."):
            package = (node.module or "").removeprefix("petl_bench.").replace(".", "/")
            package = f"{folder}/{package}".rstrip("/") if node.level else package
            found.imports.update({name.asname or name.name: (package, name.name) for name in node.names})
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
            continue
        for name in _defined(node) or [""]:
            found.defined.setdefault(name, []).append(node)
    return found


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [
        name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)
    ]


@plugins.cached
def _method(part: str, *names: str) -> str:
    """Return the digest that rows keep of what registers `names`; see SAME_NUMBERS."""
    digest = _digest_of(part, *names)
    return SAME_NUMBERS.get(digest, digest)


def _digest_of(part: str, *names: str) -> str:
    """Return the digest of what registers `names`, and of all that it refers to in modules of its part."""
    roots = (*names, *HELPERS[part])
    waiting = [
        (path, name)
        for path in _modules(part)
        if any(root in (_text_of(path) or "") for root in roots)
        for name, nodes in _module(path).defined.items()
        if name in HELPERS[part] or any(entry in names for node in nodes for entry in _registered(node))
    ]
    reached: set[tuple[str, str]] = set()
    while waiting:
        path, name = waiting.pop()
        if (path, name) in reached or name not in _module(path).defined:
            continue
        reached.add((path, name))
        waiting.append((path, ""))  # what the module does when it is imported
        used = {used for node in _module(path).defined[name] for used in _names(node, names)}
        waiting += [place for one in used for place in _places(path, one) if place[0] in _modules(part)]
    return _digest((node for path, name in reached for node in _module(path).defined[name]), names)


@cache
def _shared(part: str) -> str:
    """Return the digest that rows keep of code that all methods share; see SAME_NUMBERS."""
    digest = _digest_of_modules(part)
    return SAME_NUMBERS.get(digest, digest)


def _digest_of_modules(part: str) -> str:
    return _digest(node for path in MODULES[part] for node in _module(path).body)


def _places(path: str, name: str) -> list[tuple[str, str]]:
    """Return the modules and names of the definitions that a name stands for in a module."""
    while name not in _module(path).defined:
        if name not in _module(path).imports:
            return []
        package, name = _module(path).imports[name]
        if _text_of(whole := f"{package}/{name}") is not None:
            return [(whole, every) for every in _module(whole).defined]
        path = package if _text_of(package) is not None else f"{package}/__init__"
    return [(path, name)]


def _registered(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement registers: `@adapter(NAME, ...)`, `@TABLE.register(NAME)`."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and call.args]
    for call in calls:
        name, kind = call.args[0], ast.unparse(call.func).split(".")[-1]
        if kind in ("adapter", "register") and isinstance(name, ast.Constant):
            yield str(name.value)


def _fields(node: ast.AST, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield the fields of a node that decide numbers; those of lists one after another.

    Args:
        node: the node.
        names: registered names that the digest is for; decorators that register others are left out.
    """
    if isinstance(node, ast.Raise):
        return
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or name in UNREAD:
            continue
        if not isinstance(value, list):
            yield name, value
        elif name == "decorator_list":
            yield from ((name, held) for held in value if {*_registered(held)} <= {*names})
        elif name == "keywords":
            yield from ((name, held) for held in value if held.arg not in FACTS)
        else:
            yield from ((name, held) for held in value if not _is_text(held))


def _is_text(node: object) -> bool:
    """Return whether a node is a docstring, or what is there for type checkers alone."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(node: ast.AST, names: Sequence[str]) -> Iterator[str]:
    """Yield the names that a definition refers to."""
    if isinstance(node, ast.Name):
        yield node.id
    for _, value in _fields(node, names):
        if isinstance(value, ast.AST):
            yield from _names(value, names)


def _text(node: object, names: Sequence[str]) -> str:
    """Return a syntax tree as text."""
    if not isinstance(node, ast.AST):
        return ascii(node)
    inner = ",".join(f"{name}={_text(value, names)}" for name, value in _fields(node, names))
    return f"{type(node).__name__}({inner})"


def _digest(nodes: Iterable[ast.stmt], names: Sequence[str] = ()) -> str:
    texts = sorted({_text(node, names) for node in nodes})
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:DIGITS] if texts else ""
