"""List and describe what an experiment file can name.

components.py                     all kinds
components.py loss                all losses
components.py loss dice           one of them: arguments, types, defaults, an example (also: loss/dice)
components.py loss --plugins my_loss.py
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dataclasses
import re
import typing
from typing import Any

import registry
from core import config
from core.build import describe_type, plain
from core.contracts import KINDS
from core.errors import UserError
from core.experiment import Experiment, run_tool

WIDTH = 100


def main() -> int:
    """Print; exit 2 for an unknown kind or name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", help="e.g. loss, or loss/dice")
    parser.add_argument("name", nargs="?", help="e.g. dice")
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="a package or a .py file with components (may be repeated)",
    )
    args = parser.parse_args()
    registry.discover("plugins")
    for reference in args.plugins:
        try:
            registry.load(reference)
        except registry.RegistryError as error:
            raise UserError(f"--plugins {reference}: {error}") from error
    kind, name = args.kind, args.name
    if kind is not None and name is None and "/" in kind:
        kind, _slash, name = kind.partition("/")
    if kind is not None and kind not in KINDS:
        raise UserError(_unknown_kind(kind))
    if kind is None:
        lines = _kinds()
    elif not name:
        lines = _components(kind)
    else:
        lines = _describe(registry.get(kind, name))
    print("\n".join(lines + _broken()))
    return 0


def _unknown_kind(kind: str) -> str:
    homes = [k for k in KINDS if kind in registry.names(k)]
    text = f"unknown kind '{kind}'{registry.suggest(kind, KINDS)}"
    if homes:
        text = f"unknown kind '{kind}'; it is the name of a component: " + ", ".join(f"{k} {kind}" for k in homes)
    return "\n".join(
        [text, *textwrap.wrap(f"known: {', '.join(KINDS)}", WIDTH, initial_indent="  ", subsequent_indent="    ")]
    )


def _kinds() -> list[str]:
    rows: list[tuple[str, ...]] = [
        (k, str(len(registry.names(k))), _first_line(d.contract.__doc__)) for k, d in KINDS.items()
    ]
    return [
        *_table(list(rows)),
        "",
        "components.py KIND lists the components of a kind, components.py KIND NAME shows one.",
    ]


def _components(kind: str) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for name in registry.names(kind):
        try:
            rows.append((f"  {name}", _first_line(registry.get(kind, name).doc)))
        except registry.RegistryError as error:  # two places claim the name
            rows.append((f"  {name}", f"cannot be used: {error}"))
    lines = [*textwrap.wrap(f"{kind}: {_first_line(KINDS[kind].contract.__doc__)}", WIDTH, subsequent_indent="  "), ""]
    if not rows:
        return [*lines, f"  none yet; docs/plugins.md shows how to write one (plugins/{kind}/)"]
    return lines + _table(rows)


def _describe(component: registry.Description) -> list[str]:
    kind, declaration = component.kind, KINDS[component.kind]
    lines = [f"{kind} {component.name}   ({component.place})", ""]
    text, example = _split_example(component.doc)
    lines += [f"  {line}".rstrip() for line in _reflowed(text)]
    rows: list[tuple[str, ...]] = [
        (f"  {a.name}", describe_type(a.annotation), _default(a)) for a in component.arguments
    ]
    lines += ["", "arguments (the experiment file gives them):", *(_table(rows) or ["  none"])]
    if declaration.keys is not None:
        keys: list[tuple[str, ...]] = [
            (
                f"  {f.name}",
                describe_type(typing.get_type_hints(declaration.keys)[f.name]),
                f"default {_yaml(f.default)}",
            )
            for f in dataclasses.fields(declaration.keys)
        ]
        lines += ["", f"core's own keys of every {kind}: node:", *_table(keys)]
    offered = ", ".join(declaration.runtime) or "nothing"
    asked = ", ".join(component.runtime) or "nothing"
    article = "an" if kind[0] in "aeiou" else "a"
    lines += ["", f"core offers to {article} {kind}: {offered}", f"  this one asks for: {asked}"]
    if example:
        listed = typing.get_origin(typing.get_type_hints(Experiment)[kind]) is list
        shown = [f"  {kind}:", f"    - {example}"] if listed else [f"  {kind}: {example}"]
        lines += ["", "example:", *shown]
    return lines


def _split_example(doc: str) -> tuple[str, str]:
    text, mark, example = doc.partition("\nExample:")
    return (text.rstrip(), " ".join(example.split())) if mark else (doc, "")


def _default(argument: registry.Argument) -> str:
    return "required" if argument.required else f"default {_yaml(plain(argument.default))}"


def _yaml(value: Any) -> str:
    return config.dump(value).removesuffix("...\n").strip()


def _first_line(doc: str | None) -> str:
    """The first sentence of a docstring, which may run over two lines."""
    head = " ".join((doc or "").strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<!al)(?<!e\.g)(?<!i\.e)\.\s+(?=[A-Z`])", head, maxsplit=1)[0]
    return sentence.removesuffix(".").replace("``", "`") or "(no docstring)"


def _reflowed(text: str) -> list[str]:
    """A docstring for WIDTH columns: paragraphs and the entries under ``Args:`` are each wrapped anew."""
    blocks: list[str] = []
    for row in text.replace("``", "`").splitlines():
        begins = re.match(r" {4}\w[\w, ]*: |[A-Z]\w*:|\s*[-|>] |\s*$", row)
        before = blocks[-1] if blocks else ""
        if begins or not before.strip() or re.fullmatch(r"[A-Z]\w*:", before):
            blocks.append(row)
        else:
            blocks[-1] += f" {row.strip()}"
    lines = []
    for block in blocks:
        indent = block[: len(block) - len(block.lstrip())]
        hanging = f"{indent}    " if indent else ""
        lines += textwrap.wrap(block, WIDTH - 2, subsequent_indent=hanging, break_long_words=False) or [""]
    return lines


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    start = " " * (sum(widths) + 2 * len(widths))
    lines = []
    for *cells, last in rows:
        left = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        lines += textwrap.wrap(
            left + last, WIDTH, subsequent_indent=start, break_long_words=False, drop_whitespace=True
        )
    return lines


def _broken() -> list[str]:
    broken = registry.broken()
    if not broken:
        return []
    return ["", "could not be imported:", *(f"  {module}: {reason}" for module, reason in broken.items())]


if __name__ == "__main__":
    run_tool(main)
