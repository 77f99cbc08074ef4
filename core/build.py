"""Node -> checked plan -> object. Types come from the annotations of what is built."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import registry
from core.config import parse
from core.contracts import KINDS
from core.document import ConfigError, Node, wrap

_KIND_OF = {declaration.contract: kind for kind, declaration in KINDS.items()}


@dataclass(frozen=True)
class Plan:
    """A checked component: every argument converted, every default written out.

    Attributes:
        args: the component's own arguments; nested components are plans.
        keys: core's own keys of the node (a loss's weight, a data set's geometry), or None.
    """

    kind: str
    name: str
    args: dict[str, Any]
    keys: Any = None
    place: str = field(default="", compare=False)

    def plain(self) -> dict[str, Any]:
        """The node that plans to this again."""
        own = {} if self.keys is None else plain(self.keys)
        return {"name": self.name, **own, **{key: plain(value) for key, value in self.args.items()}}


def plain(value: Any) -> Any:
    """A converted value as YAML can hold it."""
    if isinstance(value, Plan):
        return value.plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def build(plan: Plan, **runtime: Any) -> Any:
    """Build a plan's object; it gets, by name, those of `runtime` that it lists.

    Raises:
        ConfigError: if the component refuses a value (ValueError), with the node's place.
    """
    description = registry.get(plan.kind, plan.name)
    missing = [name for name in description.runtime if name not in runtime]
    if missing:
        raise ConfigError([f"{plan.place}  {plan.kind} '{plan.name}' asks for {missing[0]}, which is not known here"])
    given = {name: runtime[name] for name in description.runtime}
    args = {key: _build_nested(value, runtime) for key, value in plan.args.items()}
    try:
        return description.target(**given, **args)
    except ValueError as error:
        raise ConfigError([f"{plan.place}  {plan.kind} '{plan.name}': {error}".strip()]) from error


def _build_nested(value: Any, runtime: dict[str, Any]) -> Any:
    if isinstance(value, Plan):
        return build(value, **runtime)
    if isinstance(value, (list, tuple)):
        return type(value)(_build_nested(v, runtime) for v in value)
    if isinstance(value, dict):
        return {key: _build_nested(v, runtime) for key, v in value.items()}
    return value


def make_plan(kind: str, node: Node, path: str, problems: list[str], *, nested: bool = False) -> Plan | None:
    """Check a component's node against its signature; problems are appended, all of them.

    Core's own keys are for core's sections: in a `nested` node nobody would read them, so they are refused.
    """
    value = node.value
    if isinstance(value, str):
        value = {"name": Node(value, node.place, node.folder)}
    if not isinstance(value, dict):
        problems.append(f"{node.place}  {path}: want a component such as {{name: ...}}, got {_show(node)}")
        return None
    if "name" not in value or not isinstance(value["name"].value, str):
        known = registry.names(kind)
        problems.append(f"{node.place}  {path}: no name; want one of {', '.join(known) or 'none that is registered'}")
        return None
    name_node = value["name"]
    try:
        description = registry.get(kind, name_node.value)
    except registry.RegistryError as error:
        problems.append(f"{name_node.place}  {path}.name: {error}")
        return None
    before = len(problems)
    keys_type = KINDS[kind].keys
    key_fields = _fields(keys_type) if keys_type is not None else {}
    clash = [a.name for a in description.arguments if a.name in key_fields]
    if clash:
        problems.append(f"{description.place}  {kind} '{description.name}': the key '{clash[0]}' of a {kind} is core's")
        return None
    known = [*(a.name for a in description.arguments), *([] if nested else key_fields)]
    for key, given in value.items():
        if key != "name" and key not in known:
            core = f"; {key} is for the entries of {kind}: alone" if key in key_fields else ""
            problems.append(
                f"{given.place}  {path}.{key}: {kind} '{description.name}' has no such argument"
                f"{core or registry.suggest(key, known)}\n"
                f"  it has: {', '.join(known) or 'none'}   ({description.place})"
            )
    args: dict[str, Any] = {}
    for argument in description.arguments:
        if argument.name not in value and argument.required:
            problems.append(f"{node.place}  {path}.{argument.name}: {kind} '{description.name}' needs this argument")
            continue
        # A default goes the same way, so that the resolved file gives the same plan again.
        given = value.get(argument.name) or wrap(plain(argument.default), f"{description.place} (default)")
        args[argument.name] = convert(given, argument.annotation, f"{path}.{argument.name}", problems)
    keys = None
    if keys_type is not None and not nested:
        own = Node({k: v for k, v in value.items() if k in key_fields}, node.place, node.folder)
        keys = convert(own, keys_type, path, problems)
    return None if len(problems) > before else Plan(kind, description.name, args, keys, name_node.place)


def convert(node: Node, annotation: Any, path: str, problems: list[str]) -> Any:
    """The node's value as `annotation` wants it; problems are appended with the node's place."""
    if annotation in _KIND_OF:
        return make_plan(_KIND_OF[annotation], node, path, problems, nested=True)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return (
            make_plan(inner[1], node, path, problems) if inner[0] is Plan else convert(node, inner[0], path, problems)
        )
    if origin in (Union, types.UnionType):
        return _convert_union(node, inner, path, problems)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _convert_dataclass(node, annotation, path, problems)
    if origin in (list, Sequence, tuple) or annotation in (list, tuple):
        return _convert_list(node, annotation, path, problems)
    if origin in (dict, Mapping) or annotation is dict:
        return _convert_dict(node, annotation, path, problems)
    if annotation is Any:
        return node.plain()
    try:
        ok, value = _scalar(node.value, annotation)
    except registry.RegistryError as error:
        problems.append(f"{node.place}  {path}: {error}")
        return None
    if not ok:
        near = difflib.get_close_matches(str(node.value), [str(i) for i in inner], n=1) if origin is Literal else []
        hint = f", did you mean '{near[0]}'?" if near else ""
        problems.append(_want(node, annotation, path) + hint)
    return value


def _convert_union(node: Node, members: Sequence[Any], path: str, problems: list[str]) -> Any:
    # Exact types first, so that `int | float` keeps 3 an int and `Literal["auto"] | Path` keeps "auto" a word.
    for member in members:
        if isinstance(member, type) and type(node.value) is member:
            return node.value
    best: list[str] | None = None
    for member in sorted(members, key=lambda m: m in (str, Path)):
        found: list[str] = []
        value = convert(node, member, path, found)
        if not found:
            return value
        if _kind(member) or (isinstance(node.value, (dict, list)) and member is not type(None)):
            best = found
    wanted = " | ".join(describe_type(member) for member in members)
    problems.extend(best or [f"{node.place}  {path}: want {wanted}, got {_show(node)}"])
    return None


def _convert_list(node: Node, annotation: Any, path: str, problems: list[str]) -> Any:
    inner = typing.get_args(annotation) or (Any,)
    is_tuple = (typing.get_origin(annotation) or annotation) is tuple
    items, value = node.value, node
    if not isinstance(items, list):
        if is_tuple or not isinstance(items, (dict, str)) or _kind(inner[0]) is None:
            problems.append(_want(node, annotation, path))
            return None
        items, value = [node], node  # a single component where a list of them is wanted
    if is_tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        if len(items) != len(inner):
            problems.append(_want(value, annotation, path))
            return None
        return tuple(convert(n, t, f"{path}[{i}]", problems) for i, (n, t) in enumerate(zip(items, inner, strict=True)))
    converted = [convert(n, inner[0], f"{path}[{i}]", problems) for i, n in enumerate(items)]
    return tuple(converted) if is_tuple else converted


def _convert_dict(node: Node, annotation: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(node.value, dict):
        problems.append(_want(node, annotation, path))
        return None
    of_key, of_value = typing.get_args(annotation) or (str, Any)
    converted = {}
    for key, value in node.value.items():
        # Keys are read as words; `{1: 0.5}` for a dict[int, float] is a number all the same.
        read = Node(key, value.place) if of_key in (str, Any) else Node(parse(key).value, value.place)
        word = convert(read, of_key, f"{path} (a key)", problems)
        converted[word] = convert(value, of_value, f"{path}.{key}", problems)
    return converted


def _convert_dataclass(node: Node, cls: type, path: str, problems: list[str]) -> Any:
    if not isinstance(node.value, dict):
        problems.append(_want(node, cls, path))
        return None
    before, prefix = len(problems), f"{path}." if path else ""
    fields = _fields(cls)
    for key, given in node.value.items():
        if key not in fields:
            hint = f"{registry.suggest(key, fields)}\n  known: {', '.join(fields)}"
            problems.append(f"{given.place}  {prefix}{key}: no such key{hint}")
    values = {}
    for name, (annotation, item) in fields.items():
        if name in node.value:
            values[name] = convert(node.value[name], annotation, f"{prefix}{name}", problems)
        elif "node" in item.metadata:
            values[name] = convert(wrap(item.metadata["node"]), annotation, f"{prefix}{name}", problems)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.append(f"{node.place}  {prefix}{name}: missing")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        for line in str(error).splitlines():  # each begins with the key that it is about
            problems.append(f"{node.value.get(line.partition(' ')[0], node).place}  {path}: {line}")
        return None


def _fields(cls: type) -> dict[str, tuple[Any, dataclasses.Field]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: (hints[f.name], f) for f in dataclasses.fields(cls) if f.init and not f.metadata.get("hidden")}


def _scalar(value: Any, annotation: Any) -> tuple[bool, Any]:
    if typing.get_origin(annotation) is Literal:
        same = [m for m in typing.get_args(annotation) if type(m) is type(value) and m == value]
        return bool(same), value
    if annotation in (None, type(None)):
        return value is None, None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is float:
        return number, float(value) if number else None
    if annotation is int:
        whole = number and (isinstance(value, int) or value.is_integer())
        return whole, int(value) if whole else None
    if annotation is bool:
        return isinstance(value, bool), value
    if annotation is Path:
        return isinstance(value, str) and value != "", Path(value) if isinstance(value, str) else None
    if annotation is str:
        return isinstance(value, str), value
    raise registry.RegistryError(f"an experiment file cannot give a {annotation}; use scalars, lists, dicts, contracts")


def _kind(annotation: Any) -> str | None:
    if typing.get_origin(annotation) is Annotated and typing.get_args(annotation)[0] is Plan:
        return str(typing.get_args(annotation)[1])
    return _KIND_OF.get(annotation)


def _want(node: Node, annotation: Any, path: str) -> str:
    return f"{node.place}  {path}: want {describe_type(annotation)}, got {_show(node)}"


def _show(node: Node) -> str:
    value = node.plain()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def describe_type(annotation: Any) -> str:
    """An annotation as a user reads it: ``int | null``, ``one of 'a', 'b'``, ``list of loss``."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin is Annotated:
        return str(inner[1])
    if origin in (Union, types.UnionType):
        return " | ".join(describe_type(i) for i in inner)
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(repr(i) for i in inner)
    if origin in (list, Sequence):
        return f"list of {describe_type(inner[0])}"
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return f"list of {describe_type(inner[0])}"
        return "[" + ", ".join(describe_type(i) for i in inner) + "]"
    if origin in (dict, Mapping):
        return f"mapping to {describe_type(inner[1])}"
    if annotation in _KIND_OF:
        return _KIND_OF[annotation]
    if dataclasses.is_dataclass(annotation):
        return "a mapping"
    return {Path: "path", str: "word"}.get(annotation, getattr(annotation, "__name__", str(annotation)))
