"""Experiment files: YAML with the place of every value kept, `extends`, dotted overrides, and a dump that loads back.

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


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def read(path: Path) -> Node:
    """Read an experiment file with everything it extends.

    Raises:
        ConfigError: for a missing or malformed file, keys given twice, and cycles of `extends`.
    """
    return _read(path, ())


def parse(text: str, place: str = COMMAND_LINE) -> Node:
    """Parse one YAML value, e.g. the right side of an override."""
    return _compose(text, place, Path(), numbered=False) or Node(None, place)


def override(root: Node, overrides: Sequence[str]) -> None:
    """Apply ``path=value`` overrides in place; ``.name`` first, so that new arguments are not dropped by a new name.

    Whether a key exists is for the plan to say, since defaults are keys too; here only the way to it must exist.

    Raises:
        ConfigError: for an override without ``=`` or a path through something that is not there.
    """
    problems: list[str] = []
    pairs = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(?:\[\d+\])*(?:\.[A-Za-z_]\w*(?:\[\d+\])*)*", path.strip()):
            problems.append(f"{COMMAND_LINE}  {text!r}: want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1")
            continue
        try:
            pairs.append((path.strip(), parse(value)))
        except ConfigError as error:
            problems += [f"{p} (in {text!r})" for p in error.problems]
    for path, node in sorted(pairs, key=lambda pair: not pair[0].endswith(".name")):
        problem = _apply(root, path, node)
        if problem:
            problems.append(f"{COMMAND_LINE}  {path}: {problem}")
    if problems:
        raise ConfigError(problems)


def merge(base: Node, top: Node) -> Node:
    """`top` over `base`: mappings key by key, lists replaced, a component of another `name` replaces the node."""
    if not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    names = [n.value["name"].value if "name" in n.value else None for n in (base, top)]
    if names[1] is not None and names[0] != names[1]:
        return top
    merged = dict(base.value)
    for key, node in top.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, top.place, top.folder)


def dump(value: Any) -> str:
    """YAML that `read` and `parse` read back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def _read(path: Path, above: tuple[Path, ...]) -> Node:
    resolved = path.resolve()
    if resolved in above:
        raise ConfigError([f"{path}  extends: a cycle: {' -> '.join(p.name for p in (*above, resolved))}"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file{_neighbours(path)}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    node = _compose(text, str(path), path.parent, numbered=True)
    if node is None or not isinstance(node.value, dict):
        raise ConfigError([f"{path}: want a mapping of sections (source, model, loss, ...)"])
    extends = node.value.pop("extends", None)
    if extends is None:
        return node
    names = extends.plain() if isinstance(extends.value, list) else [extends.value]
    base: Node | None = None
    for name in names:
        if not isinstance(name, str):
            raise ConfigError([f"{extends.place}  extends: want a path, got {name!r}"])
        target = path.parent / name
        if not target.is_file():
            raise ConfigError([f"{extends.place}  extends: no such file: {target}{_neighbours(target)}"])
        read_base = _read(target, (*above, resolved))
        base = read_base if base is None else merge(base, read_base)
    return node if base is None else merge(base, node)


def _neighbours(path: Path) -> str:
    from registry import suggest

    if not path.parent.is_dir():
        return f" (and no such folder: {path.parent})"
    return suggest(path.name, [p.name for p in path.parent.glob("*.y*ml")])


def _compose(text: str, source: str, folder: Path, *, numbered: bool) -> Node | None:
    try:
        loader = _Loader(text)
        try:
            tree = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark is not None and numbered else source
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError([f"{place}  not YAML: {reason}"]) from error
    if tree is None:
        return None
    problems: list[str] = []
    node = _Composer(source, folder, numbered, problems).node(tree, None, ())
    if problems:
        raise ConfigError(problems)
    return node


@dataclass
class _Composer:
    source: str
    folder: Path
    numbered: bool
    problems: list[str]

    def place(self, tree: yaml.Node) -> str:
        return f"{self.source}:{tree.start_mark.line + 1}" if self.numbered else self.source

    def node(self, tree: yaml.Node, place: str | None, above: tuple[int, ...]) -> Node:
        place = place or self.place(tree)
        if id(tree) in above:
            self.problems.append(f"{place}  an alias contains itself")
            return Node(None, place, self.folder)
        above = (*above, id(tree))
        if isinstance(tree, yaml.MappingNode):
            return Node(dict(self._items(tree, above)), place, self.folder)
        if isinstance(tree, yaml.SequenceNode):
            return Node([self.node(item, None, above) for item in tree.value], place, self.folder)
        return Node(self._scalar(tree, place), place, self.folder)

    def _items(self, tree: yaml.MappingNode, above: tuple[int, ...]) -> Iterator[tuple[str, Node]]:
        seen: dict[str, str] = {}
        for key_tree, value_tree in tree.value:
            place, key = self.place(key_tree), key_tree.value
            if not isinstance(key_tree, yaml.ScalarNode):
                self.problems.append(f"{place}  a key must be a word")
                continue
            if key == "<<":
                self.problems.append(f"{place}  <<: merge keys are not supported; use extends")
                continue
            if key in seen:
                self.problems.append(f"{place}  {key}: given twice (first at {seen[key]})")
                continue
            seen[key] = place
            yield key, self.node(value_tree, place, above)

    def _scalar(self, tree: yaml.Node, place: str) -> Any:
        kind, text = tree.tag.rpartition(":")[2], tree.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            if re.match(r"^[-+]?0[0-9]", text):
                self.problems.append(f"{place}  {text}: a number may not begin with 0; write {int(text)} or '{text}'")
            return int(text)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if kind != "str":
            self.problems.append(f"{place}  {tree.tag}: tags are not supported")
        return text


def _apply(root: Node, path: str, node: Node) -> str | None:
    from registry import suggest

    steps: list[str | int] = [int(s) if s.isdigit() else s for s in re.findall(r"[A-Za-z_]\w*|\d+", path)]
    here, walked = root, ""
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        last = following is None
        if isinstance(step, int):
            if not isinstance(here.value, list):
                return f"'{walked}' is not a list"
            if step >= len(here.value):
                return f"'{walked}' has {len(here.value)} entries, so the greatest index is {len(here.value) - 1}"
            if last:
                here.value[step] = node
            else:
                here = here.value[step]
            walked += f"[{step}]"
            continue
        if isinstance(here.value, str):
            # `sampler: uniform` is short for `sampler: {name: uniform}`.
            here.value = {"name": Node(here.value, here.place, here.folder)}
        if here.value is None:
            here.value = {}
        if isinstance(here.value, list):
            return f"'{walked}' is a list; say which entry: {walked}[0].{step}"
        if not isinstance(here.value, dict):
            return f"'{walked}' is {here.value!r}, not a mapping"
        if last:
            if step == "name" and "name" in here.value and here.value["name"].value != node.value:
                here.value.clear()
            here.value[step] = merge(here.value[step], node) if step in here.value else node
        else:
            if step not in here.value:
                if isinstance(following, int):
                    return f"no such list{suggest(step, here.value)}"
                here.value[step] = Node({}, COMMAND_LINE)
            here = here.value[step]
        walked = f"{walked}.{step}" if walked else step
    return None
