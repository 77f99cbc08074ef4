"""YAML text -> values that know their place, and values -> YAML that reads back the same.

YAML's traps are closed: scalars follow YAML 1.2 (``1e-3`` is a number, ``on`` and ``no`` are words), ``012`` and a key
given twice are errors, dates and ``12:30`` are words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError

COMMAND_LINE = "command line"


class ConfigError(UserError):
    """All problems of an experiment, one a line, each with its place."""

    def __init__(self, problems: Sequence[str], what: str = "the experiment") -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count} in {what}\n" + "\n".join(problems))
        self.problems = list(problems)


@dataclass
class Node:
    """A value with its place: a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    place: str
    folder: Path = field(default_factory=Path)

    def plain(self) -> Any:
        """The bare value, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def wrap(value: Any, place: str = "default") -> Node:
    """A bare value as a node whose parts all have one place."""
    if isinstance(value, dict):
        return Node({str(k): wrap(v, place) for k, v in value.items()}, place)
    return Node([wrap(v, place) for v in value] if isinstance(value, list) else value, place)


_RESOLVERS = [
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"),
        list("-+0123456789."),
    ),
]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _word(dumper: _Dumper, text: str) -> yaml.Node:
    # Unquoted, these line breaks of old come back as a space or a newline.
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _word)
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def dump(value: Any) -> str:
    """YAML that `read` and `parse` read back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def compose(text: str, source: str, folder: Path, problems: list[str], *, numbered: bool) -> Node | None:
    """The nodes of a text, or None if it is empty; problems are appended, and what is not YAML is a ConfigError."""
    try:
        events: list[Any] = list(yaml.parse(text, Loader=_Loader))
        tree = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark is not None and numbered else source
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; indent with spaces, not tabs" if "'\\t'" in reason else ""
        raise ConfigError([f"{place}  not YAML: {reason}{hint}"]) from error
    tags: list[tuple[Any, str]] = [(e.start_mark, e.tag) for e in events if getattr(e, "tag", None) is not None]
    if tags:
        places = [f"{source}:{mark.line + 1}" if numbered else source for mark, _tag in tags]
        raise ConfigError([f"{p}  tags such as {t} are not supported" for p, (_, t) in zip(places, tags, strict=True)])
    return None if tree is None else _Composer(source, folder, numbered, problems).node(tree, "", None, ())


@dataclass
class _Composer:
    source: str
    folder: Path
    numbered: bool
    problems: list[str]

    def place(self, tree: yaml.Node) -> str:
        return f"{self.source}:{tree.start_mark.line + 1}" if self.numbered else self.source

    def node(self, tree: yaml.Node, path: str, place: str | None, above: tuple[int, ...]) -> Node:
        place = place or self.place(tree)
        if id(tree) in above:
            self.problems.append(f"{place}  an alias contains itself")
            return Node(None, place, self.folder)
        above = (*above, id(tree))
        if isinstance(tree, yaml.MappingNode):
            return Node(dict(self._items(tree, path, above)), place, self.folder)
        if isinstance(tree, yaml.SequenceNode):
            items = [self.node(item, f"{path}[{i}]", None, above) for i, item in enumerate(tree.value)]
            return Node(items, place, self.folder)
        return Node(self._scalar(tree, path, place), place, self.folder)

    def _items(self, tree: yaml.MappingNode, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Node]]:
        seen: dict[str, str] = {}
        for key_tree, value_tree in tree.value:
            place, key = self.place(key_tree), key_tree.value
            if not isinstance(key_tree, yaml.ScalarNode):
                self.problems.append(f"{place}  a key must be a word")
                continue
            if key == "<<":
                self.problems.append(f"{place}  <<: merge keys are not supported; use extends")
                continue
            here = f"{path}.{key}" if path else key
            if key in seen:
                self.problems.append(f"{place}  {here}: given twice (first at {seen[key]})")
                continue
            seen[key] = place
            yield key, self.node(value_tree, here, place, above)

    def _scalar(self, tree: yaml.Node, path: str, place: str) -> Any:
        kind, text = tree.tag.rpartition(":")[2], tree.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            if re.match(r"^[-+]?0[0-9]", text):
                hint = f"a number may not begin with 0: {text}; write {int(text)} or '{text}'"
                self.problems.append(f"{place}  {path}: {hint}" if path else f"{place}  {hint}")
            return int(text)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text
