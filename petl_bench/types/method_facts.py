"""Facts of the adapter methods, read from their source files without importing them.

Each file of petl_bench/adapters states all facts of its methods: the dataclass of the settings has a literal
default and a docstring for each field, and the arguments of the decorator `adapter` are literals. So do those
of plug-ins. These files import torch, which takes seconds; planning and reports therefore parse them instead.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petl_bench import plugins
from petl_bench.errors import UserError, did_you_mean
from petl_bench.types.parts import AdapterSpec
from petl_bench.types.settings import Setting, freeze

ADAPTERS = Path(__file__).parent.parent / "adapters"
"""Folder of the source files."""
TABLE = "ADAPTERS"
"""Name of the registry of the methods (petl_bench.adapters.base)."""

GROUPS = ("probe", "control", "selective", "additive", "low-rank", "reparameterized", "prompt")
"""Groups of methods that `petl-bench ls adapters` shows."""


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """Facts of an adapter method that its decorator `adapter` states.

    Attributes:
        description: one sentence about the method, with its source.
        group: one of GROUPS.
        tokenwise: whether the change of a token depends on no other token, so that the last block may leave
            out tokens that nothing reads.
        unused: settings common to all methods that this one does not use, with the values that they are
            recorded with whatever is chosen. Those of the recipe (`train.drop_path`) are recorded as chosen,
            since methods are compared by recipe, and have this value in the identity of the run.
        nested: name of the setting that states how many of the first ranks are kept, if every rank has
            matrices of its own and files can thus be truncated to fewer ranks; else empty.
    """

    description: str
    group: str
    tokenwise: bool = False
    unused: Mapping[str, Any] = field(default_factory=dict)
    nested: str = ""

    def __post_init__(self) -> None:
        assert self.group in GROUPS, f"group={self.group!r}: it must be one of {', '.join(GROUPS)}"
        freeze(self, "unused")


@dataclass(frozen=True, kw_only=True)
class DeclaredMethod(MethodFacts):
    """An adapter method as its source file declares it.

    Attributes:
        name: value of `adapter=`.
        settings: declarations of its own settings, whose keys are `adapter.SETTING`.
    """

    name: str
    settings: Mapping[str, Setting]

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the defaults of its own settings."""
        return {name: known.default for name, known in self.settings.items()}


def method(name: str) -> DeclaredMethod:
    """Return the facts of one adapter method.

    Raises:
        UserError: there is no such adapter.
    """
    if name not in methods():
        why = plugins.explained(TABLE, name, did_you_mean(name, methods()))
        raise UserError(f"unknown adapter {name!r}: {why}")
    return methods()[name]


@plugins.cached
def methods() -> Mapping[str, DeclaredMethod]:
    """Return the facts of all adapter methods by name, in alphabetical order.

    Raises:
        ValueError: a source file states a fact by something else than a literal.
        UserError: a plug-in has a method with the name of one of the package.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in ADAPTERS.glob("*.py")}
    found = {declared.name: declared for path, text in texts.items() for declared in _read(path, text)}
    plugins.refuse_taken("adapter", TABLE, found)
    for _, module in plugins.providers(TABLE):
        try:
            found |= {declared.name: declared for declared in _read(module.path, module.text)}
        except (ValueError, AssertionError) as error:
            plugins.blame(module, f"plug-in {error}")
    return dict(sorted(found.items()))


def completed(name: str, settings: Mapping[str, Any]) -> AdapterSpec:
    """Return an adapter in which the settings that are not given have the defaults of its method.

    Raises:
        UserError: there is no such adapter.
    """
    return AdapterSpec(name, {**method(name).defaults, **settings})


def changed(adapter: AdapterSpec) -> dict[str, Any]:
    """Return the settings of an adapter that differ from the defaults of its method (unknown: all)."""
    defaults = methods()[adapter.name].defaults if adapter.name in methods() else {}
    return {key: value for key, value in adapter.settings.items() if value != defaults.get(key)}


def changed_text(adapter: AdapterSpec) -> str:
    """Return the settings that differ from the defaults as text, for example `dropout=0.2 share=0`."""
    return " ".join(f"{key}={value}" for key, value in sorted(changed(adapter).items()))


@functools.cache
def _read(path: Path, text: str) -> tuple[DeclaredMethod, ...]:
    """Return the methods of one source file."""
    if "@adapter(" not in text:
        return ()
    found = []
    try:
        body = ast.parse(text).body
        classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        for node in body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "adapter":
                    found.append(_declared(call, classes))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: a fact of a method must be a literal of this file: {error}") from error
    return tuple(found)


def _declared(call: ast.Call, classes: Mapping[str, ast.ClassDef]) -> DeclaredMethod:
    """Return the method that one call of the decorator `adapter` declares."""
    named = {keyword.arg or "": keyword.value for keyword in call.keywords}
    settings = _settings(ast.unparse(named.pop("config")), classes)
    facts = {key: ast.literal_eval(value) for key, value in named.items()}
    return DeclaredMethod(name=ast.literal_eval(call.args[0]), settings=settings, **facts)


def _settings(name: str, classes: Mapping[str, ast.ClassDef]) -> dict[str, Setting]:
    """Return the fields of a dataclass, those of its base classes first.

    A field that only changes the default of a base class keeps that one's docstring.
    """
    found: dict[str, Setting] = {}
    for base in classes[name].bases:
        found |= _settings(ast.unparse(base), classes)
    body = classes[name].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            continue
        key = ast.unparse(node.target)
        help = found[key].help if key in found else ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            help = " ".join(str(after.value.value).split())
        found[key] = Setting(help=help, default=ast.literal_eval(node.value))
    return found
