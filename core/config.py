"""Experiment files: `extends`, dotted overrides, and merging in which old arguments cannot leak."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from core.document import COMMAND_LINE, ConfigError, Node, compose, dump

__all__ = ["COMMAND_LINE", "ConfigError", "Node", "dump", "layer", "merge", "override", "parse", "read"]


def read(path: Path, problems: list[str] | None = None) -> Node:
    """Read an experiment file with everything it extends.

    Problems that leave something to go on with (a key given twice, ``012``, a tag) are appended to `problems`.

    Raises:
        ConfigError: for a missing or malformed file, cycles of `extends`, and without a list `problems` for any.
    """
    found: list[str] = []
    node = _read(path, (), found)
    _hand_over(found, problems)
    return node


def parse(text: str, place: str = COMMAND_LINE) -> Node:
    """Parse one YAML value, e.g. the right side of an override."""
    found: list[str] = []
    node = compose(text, place, Path(), found, numbered=False) or Node(None, place)
    _hand_over(found, None)
    return node


def override(root: Node, overrides: Sequence[str], problems: list[str] | None = None) -> None:
    """Apply ``path=value`` overrides in place: a whole before its parts, ``.name`` before the other arguments.

    Whether a key exists is for the plan to say, since defaults are keys too; here only the way to it must exist.

    Raises:
        ConfigError: without a list `problems`, for an override without ``=`` or a path through what is not there.
    """
    found: list[str] = []
    pairs: list[tuple[str, Node]] = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(?:\[\d+\])*(?:\.[A-Za-z_]\w*(?:\[\d+\])*)*", path.strip()):
            found.append(f"{COMMAND_LINE}  {text!r}: want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1")
            continue
        try:
            pairs.append((path.strip(), parse(value)))
        except ConfigError as error:
            found += [f"{p} (in {text!r})" for p in error.problems]
    # Otherwise `sampler.length=5 sampler.name=tumour_focused` would drop the length with the old sampler's arguments.
    for path, node in sorted(pairs, key=lambda pair: len(_steps(pair[0])) - pair[0].endswith(".name") / 2):
        problem = _apply(root, path, node)
        if problem:
            found.append(f"{COMMAND_LINE}  {path}: {problem}")
    _hand_over(found, problems)


def merge(base: Node, top: Node) -> Node:
    """`top` over `base`: mappings key by key, lists replaced, a component of another `name` replaces the node.

    ``sampler: uniform`` is short for ``sampler: {name: uniform}`` on either side.
    """
    if isinstance(base.value, dict) and "name" in base.value and isinstance(top.value, str):
        top = _named(top)
    elif isinstance(base.value, str) and isinstance(top.value, dict):
        base = _named(base)
    if not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    names = [n.value["name"].value if "name" in n.value else None for n in (base, top)]
    if names[1] is not None and names[0] != names[1]:
        return top
    return layer(base, top)


def layer(base: Node, top: Node) -> Node:
    """`top` over `base`, both whole files: as `merge`, but a key ``name`` at the top level is no component's."""
    merged = dict(base.value)
    for key, node in top.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, top.place, top.folder)


def _hand_over(found: list[str], problems: list[str] | None) -> None:
    if found and problems is None:
        raise ConfigError(found)
    if problems is not None:
        problems += found


def _named(node: Node) -> Node:
    return Node({"name": Node(node.value, node.place, node.folder)}, node.place, node.folder)


def _read(path: Path, above: tuple[Path, ...], problems: list[str]) -> Node:
    resolved = path.resolve()
    if resolved in above:
        raise ConfigError([f"{path}  extends: a cycle: {' -> '.join(p.name for p in (*above, resolved))}"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file{_neighbours(path)}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    node = compose(text, str(path), path.parent, problems, numbered=True)
    if node is None or not isinstance(node.value, dict):
        raise ConfigError([f"{path}: want a mapping of sections (source, model, loss, ...)"])
    extends = node.value.pop("extends", None)
    if extends is None:
        return node
    names = extends.plain() if isinstance(extends.value, list) else [extends.plain()]
    base: Node | None = None
    for name in names:
        if not isinstance(name, str):
            raise ConfigError([f"{extends.place}  extends: want a path, got {name!r}"])
        target = path.parent / name
        if not target.is_file():
            raise ConfigError([f"{extends.place}  extends: no such file: {target}{_neighbours(target)}"])
        read_base = _read(target, (*above, resolved), problems)
        base = read_base if base is None else layer(base, read_base)
    return node if base is None else layer(base, node)


def _neighbours(path: Path) -> str:
    from registry import suggest

    if not path.parent.is_dir():
        return f" (and no such folder: {path.parent})"
    return suggest(path.name, [p.name for p in path.parent.glob("*.y*ml")])


def _steps(path: str) -> list[str | int]:
    return [int(s) if s.isdigit() else s for s in re.findall(r"[A-Za-z_]\w*|\d+", path)]


def _apply(root: Node, path: str, node: Node) -> str | None:
    from registry import suggest

    steps = _steps(path)
    here, walked = root, ""
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        last = following is None
        if isinstance(step, int):
            if not isinstance(here.value, list):
                return f"'{walked}' is not a list"
            if step >= len(here.value):
                entries = "1 entry" if len(here.value) == 1 else f"{len(here.value) or 'no'} entries"
                return f"'{walked}' has {entries}" + (f": [0] to [{len(here.value) - 1}]" if here.value else "")
            if last:
                here.value[step] = merge(here.value[step], node)
            else:
                here = here.value[step]
            walked += f"[{step}]"
            continue
        if isinstance(here.value, str):
            here.value = _named(here).value
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
