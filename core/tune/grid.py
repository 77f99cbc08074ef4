"""What is tried: steps of post-processing with some of their arguments varied, and every setting of them in a list."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import registry
from core import config
from core.build import Plan, build, make_plan, plain
from core.document import ConfigError, Node
from core.errors import UserError
from core.infer.evaluate import wants_probabilities

OFF = "off"
"""As a value: the step is left out."""
DEFAULT = (
    "{name: tumour_threshold, threshold: [off, 0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9]}",
    "{name: drop_small, structure: tumour, min_ml: [off, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]}",
)
MOST = 2000
"""Settings; each is measured on every validation case."""


@dataclass(frozen=True)
class Step:
    """A step whose options are tried.

    Attributes:
        title: what varies, e.g. ``drop_small.min_ml``.
        varied: the arguments that do.
        options: the plan of each option, None where the step is left out; in the order in which ties prefer them.
        words: each option as a user reads it.
    """

    title: str
    varied: tuple[str, ...]
    options: tuple[Plan | None, ...]
    words: tuple[str, ...]


Slot = Plan | Step


@dataclass(frozen=True)
class Grid:
    """The list of post-processing with some of its steps open.

    Attributes:
        slots: in the order in which they run: fixed plans and steps that are tried.
        own: the setting that the run itself has.
    """

    slots: tuple[Slot, ...]
    own: tuple[int, ...]

    @property
    def steps(self) -> list[Step]:
        """Those that are tried."""
        return [slot for slot in self.slots if isinstance(slot, Step)]

    def settings(self) -> list[tuple[int, ...]]:
        """Every choice of an option a step, the preferred ones first: fewer steps on, then options listed earlier."""
        every = itertools.product(*(range(len(step.options)) for step in self.steps))
        return sorted(every, key=lambda setting: (self._count(setting), sum(setting), setting))

    def plans(self, setting: Sequence[int]) -> list[Plan]:
        """The list of post-processing of a setting."""
        chosen = iter(setting)
        picked = [slot.options[next(chosen)] if isinstance(slot, Step) else slot for slot in self.slots]
        return [plan for plan in picked if plan is not None]

    def words(self, setting: Sequence[int]) -> dict[str, str]:
        """A setting as a user reads it, by what varies."""
        return {step.title: step.words[option] for step, option in zip(self.steps, setting, strict=True)}

    def _count(self, setting: Sequence[int]) -> int:
        return sum(step.options[option] is not None for step, option in zip(self.steps, setting, strict=True))


def read(entries: Sequence[str]) -> list[Step]:
    """The steps that ``--grid`` names; `DEFAULT` without any.

    Args:
        entries: each ``NAME.ARGUMENT=VALUE,VALUE``, a node of a post-processor with lists for values, or a YAML file
            with a list of such nodes.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[str] = []
    nodes = [node for entry in entries or DEFAULT for node in _nodes(entry)]
    steps = [step for node in nodes if (step := _step(node, problems)) is not None]
    for a, b in itertools.combinations(steps, 2):
        if a.title == b.title:
            problems.append(f"--grid: {a.title} is given twice; put all its values into one")
    if problems:
        raise ConfigError(problems, "the grid")
    return steps


def arrange(base: Sequence[Plan], steps: Sequence[Step]) -> Grid:
    """Where the steps go among the post-processing that the run has.

    A step that the run has already (the same but for what varies) stays at its place, and what the run has there is
    tried too. Others: first those that ask for probabilities, since they decide what the later ones clean; last the
    rest.

    Raises:
        UserError: if there are more than `MOST` settings.
    """
    slots: list[Slot] = list(base)
    own: dict[str, int] = {}
    before: list[Slot] = []
    after: list[Slot] = []
    for step in steps:
        place = next((i for i, slot in enumerate(slots) if isinstance(slot, Plan) and _same_but_for(slot, step)), None)
        if place is not None:
            plan = slots[place]
            assert isinstance(plan, Plan)
            if plan not in step.options:
                step = _with_own(step, plan)
            own[step.title] = step.options.index(plan)
            slots[place] = step
            continue
        if None not in step.options:  # the run's own setting is one of those that are compared
            step = dataclasses.replace(step, options=(None, *step.options), words=(OFF, *step.words))
        own[step.title] = step.options.index(None)
        asks = wants_probabilities([build(option) for option in step.options if option is not None])
        (before if asks else after).append(step)
    grid = Grid((*before, *slots, *after), ())
    count = 1
    for step in grid.steps:
        count *= len(step.options)
    if count > MOST:
        sizes = " x ".join(f"{len(step.options)} {step.title}" for step in grid.steps)
        raise UserError(f"--grid: {count} settings ({sizes}), and at most {MOST} are tried; give fewer values")
    return dataclasses.replace(grid, own=tuple(own[step.title] for step in grid.steps))


def _nodes(entry: str) -> Iterator[Node]:
    if entry.lstrip().startswith(("{", "[")):
        node = config.parse(entry, "--grid")
    elif "=" in entry:
        path, _, values = entry.partition("=")
        name, dot, argument = path.strip().partition(".")
        if not (name and dot and argument):
            raise UserError(f"--grid {entry}: want NAME.ARGUMENT=VALUES, e.g. drop_small.min_ml=off,0.05")
        listed = config.parse(f"[{values}]", "--grid")
        node = Node({"name": Node(name, "--grid"), argument: listed}, "--grid")
    else:
        file = Path(entry)
        if not file.is_file():
            raise UserError(
                f"--grid {entry}: no such file; want one, or drop_small.min_ml=off,0.05, or a node such as {DEFAULT[1]}"
            )
        node = config.parse(file.read_text(encoding="utf-8"), entry)
    yield from node.value if isinstance(node.value, list) else [node]


def _step(node: Node, problems: list[str]) -> Step | None:
    if not isinstance(node.value, dict):
        problems.append(f"{node.place}: want a node such as {DEFAULT[1]}")
        return None
    tried = {key: value.value for key, value in node.value.items() if isinstance(value.value, list) and key != "name"}
    fixed = {key: value for key, value in node.value.items() if key not in tried}
    options: dict[str, Plan | None] = {}
    before = len(problems)
    for values in itertools.product(*tried.values()) if tried else ():
        given = Node({**fixed, **dict(zip(tried, values, strict=True))}, node.place)
        word, plan = _option(given, tuple(tried), problems)
        options.setdefault(word, plan)
    if len(problems) == before and not any(options.values()):
        problems.append(f"{node.place}: no values to try; give a list of them, e.g. {DEFAULT[1]}")
    if len(problems) > before:
        return None
    name = str(fixed["name"].plain())
    told = ", ".join(f"{key}={value.plain()}" for key, value in fixed.items() if _unusual(name, key, value))
    title = f"{name}({told})" if told else name
    return Step(f"{title}.{', '.join(tried)}", tuple(tried), tuple(options.values()), tuple(options))


def _option(node: Node, varied: tuple[str, ...], problems: list[str]) -> tuple[str, Plan | None]:
    """One option in a user's words, and its plan."""
    values = [node.value[key].value for key in varied]
    if OFF in values:
        return OFF, None
    found: list[str] = []
    plan = make_plan("postprocess", node, "postprocess", found)
    if plan is not None:
        try:
            build(plan)
            return _word(plan, varied), plan
        except ConfigError as error:
            if all(value in (0, None) for value in values):
                return OFF, None  # drop_small.min_ml=0,0.05: who drops nothing has no such step
            found = error.problems
    problems += [text for text in found if text not in problems]
    return OFF, None


def _unusual(name: str, key: str, value: Node) -> bool:
    """Whether an argument has to be told: it is not what the component would take anyway."""
    arguments = registry.get("postprocess", name).arguments
    return any(a.name == key and (a.required or plain(a.default) != value.plain()) for a in arguments)


def _word(plan: Plan, tried: Sequence[str]) -> str:
    if len(tried) == 1:
        return _number(plan.args[tried[0]])
    return ", ".join(f"{key}={_number(plan.args[key])}" for key in tried)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(plain(value))


def _same_but_for(plan: Plan, step: Step) -> bool:
    other = next((option for option in step.options if option is not None), None)
    if other is None or plan.name != other.name:
        return False
    return all(plan.args[key] == other.args[key] for key in plan.args if key not in step.varied)


def _with_own(step: Step, plan: Plan) -> Step:
    first = int(step.options[0] is None)
    options, words = list(step.options), list(step.words)
    options.insert(first, plan)
    words.insert(first, _word(plan, step.varied))
    return dataclasses.replace(step, options=tuple(options), words=tuple(words))
