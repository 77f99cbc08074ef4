"""Names -> components. Standard library only.

A component is a class or a function registered under a kind and a name. The ``*`` in its signature is the border:
before it stands what core passes in by name (the kind's runtime arguments), after it what the experiment file gives.

    @register("loss", "dice")
    class Dice:
        def __init__(self, classes: int, *, smooth: float = 1.0) -> None: ...
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ENTRY_POINTS = "hepar.plugins"
_T = TypeVar("_T", bound=Callable[..., Any])


class RegistryError(Exception):
    """A component that cannot be registered, or a name that nobody registered."""


@dataclass(frozen=True)
class Argument:
    """One configuration argument of a component."""

    name: str
    annotation: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether the experiment file has to give it."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Description:
    """What is known of a component without building it."""

    kind: str
    name: str
    target: Callable[..., Any]
    runtime: tuple[str, ...]
    arguments: tuple[Argument, ...]
    file: str
    line: int

    @property
    def place(self) -> str:
        """``file:line`` of the definition, relative to the current folder where it lies below it."""
        return _place(self.file, self.line)

    @property
    def doc(self) -> str:
        """The docstring, dedented."""
        return inspect.getdoc(self.target) or ""


@dataclass
class _Kind:
    runtime: tuple[str, ...]
    check: Callable[[Any], str | None] | None = None


@dataclass
class _State:
    kinds: dict[str, _Kind] = field(default_factory=dict)
    components: dict[tuple[str, str], Description] = field(default_factory=dict)
    conflicts: dict[tuple[str, str], str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    imported: set[tuple[str, str]] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    entry_points_read: bool = False


_state = _State()


def declare(kind: str, *, runtime: Sequence[str] = (), check: Callable[[Any], str | None] | None = None) -> None:
    """Declare a kind, what core offers to its components by name, and a check that returns what is wrong, or None."""
    _state.kinds[kind] = _Kind(tuple(runtime), check)


def kinds() -> list[str]:
    """All declared kinds, in the order of their declaration."""
    return list(_state.kinds)


def register(kind: str, name: str) -> Callable[[_T], _T]:
    """Register a class or a function as component `name` of `kind`.

    Raises:
        RegistryError: for an unknown kind, a name that is taken, ``*args`` or ``**kwargs``, an untyped configuration
            argument, one called ``name``, or a runtime argument that the kind does not offer; always with
            ``file:line``.
    """

    def decorate(target: _T) -> _T:
        described = _describe(kind, name, target)
        taken = _state.components.get((kind, name))
        if taken is not None and (taken.file, taken.line) != (described.file, described.line):
            text = f"{kind} '{name}' is registered twice: {taken.place} and {described.place}"
            _state.conflicts[kind, name] = text
            raise RegistryError(text)
        _state.components[kind, name] = described
        return target

    return decorate


def discover(*packages: str) -> None:
    """Name packages to search; the modules of a kind are imported when that kind is first asked for.

    In package ``p`` the components of kind ``k`` live in ``p.k`` (a module or a folder of modules).
    """
    for package in packages:
        if package not in _state.packages:
            _state.packages.append(package)


def load(reference: str) -> None:
    """Load one entry of a YAML's ``plugins:`` list: a package name, or the path of a single ``.py`` file.

    Raises:
        RegistryError: if it does not exist or cannot be imported. What a user names must work.
    """
    if reference.endswith(".py"):
        path = Path(reference).resolve()
        if not path.is_file():
            raise RegistryError(f"no such file: {reference}")
        _import_file(path)
        if str(path) not in _state.files:
            _state.files.append(str(path))
        return
    try:
        module = importlib.import_module(reference)
        discover(reference)
        for kind in _state.kinds:
            _import_kind(module.__name__, kind)
    except Exception as error:
        raise RegistryError(f"{reference} cannot be imported: {_reason(error)}") from error
    broken = [f"{name}: {reason}" for name, reason in _state.broken.items() if f"{name}.".startswith(f"{reference}.")]
    if broken:
        raise RegistryError(f"{reference} cannot be imported: " + "; ".join(broken))


def get(kind: str, name: str) -> Description:
    """The component `name` of `kind`.

    Raises:
        RegistryError: if it is unknown (with what exists, the nearest name, and the plugins that failed to import) or
            if two places claim the name.
    """
    _import_all(kind)
    if (kind, name) in _state.conflicts:
        raise RegistryError(_state.conflicts[kind, name])
    try:
        return _state.components[kind, name]
    except KeyError:
        raise RegistryError(_unknown(kind, name)) from None


def names(kind: str) -> list[str]:
    """The sorted names of all components of a kind."""
    _import_all(kind)
    return sorted(n for k, n in _state.components if k == kind)


def broken() -> dict[str, str]:
    """Modules that failed to import, each with the reason."""
    return dict(_state.broken)


def sources() -> tuple[list[str], list[str]]:
    """The packages and files in use, for `restore` in another process."""
    return list(_state.packages), list(_state.files)


def restore(sources: tuple[list[str], list[str]]) -> None:
    """Make the same components known in a fresh process (data workers started by spawn or forkserver)."""
    packages, files = sources
    discover(*packages)
    for file in files:
        load(file)


def suggest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the nearest known word, else an empty string."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def _unknown(kind: str, name: str) -> str:
    if _state.kinds and kind not in _state.kinds:
        return f"unknown kind '{kind}'{suggest(kind, _state.kinds)}\n  known: {', '.join(_state.kinds)}"
    known = names(kind)
    text = f"unknown {kind} '{name}'{suggest(name, known)}\n  known: {', '.join(known) or 'none'}"
    for module, reason in _state.broken.items():
        text += f"\n  could not import {module}: {reason}"
    return text


def _describe(kind: str, name: str, target: Callable[..., Any]) -> Description:
    file, line = _where(target)
    here = f"{_place(file, line)}  {kind} '{name}'"
    declared = _state.kinds.get(kind)
    if _state.kinds and declared is None:
        raise RegistryError(f"{here}: unknown kind '{kind}'{suggest(kind, _state.kinds)}")
    own_init = not inspect.isclass(target) or target.__init__ is not object.__init__
    parameters = list(inspect.signature(target).parameters.values()) if own_init else []
    function = target.__init__ if inspect.isclass(target) else target
    runtime, arguments = [], []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RegistryError(f"{here}: {parameter} is not allowed; list every argument, so that typos are errors")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            if declared is not None and parameter.name not in declared.runtime:
                offered = ", ".join(declared.runtime) or "nothing"
                raise RegistryError(
                    f"{here}: core offers no '{parameter.name}' to a {kind} (it offers {offered}); "
                    f"put configuration arguments after the *"
                )
            runtime.append(parameter.name)
            continue
        if parameter.name == "name":
            raise RegistryError(f"{here}: an argument may not be called 'name'; the experiment file uses that key")
        if parameter.annotation is parameter.empty:
            raise RegistryError(f"{here}: argument '{parameter.name}' has no type annotation")
        arguments.append(Argument(parameter.name, _resolve(parameter, function, here), parameter.default))
    complaint = declared.check(target) if declared is not None and declared.check is not None else None
    if complaint:
        raise RegistryError(f"{here}: {complaint}")
    return Description(kind, name, target, tuple(runtime), tuple(arguments), file, line)


def _resolve(parameter: inspect.Parameter, function: Any, here: str) -> Any:
    # One by one: a runtime argument may be annotated with a name that only a type checker imports.
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}))[parameter.name]
    except NameError as error:
        text = f"{here}: the annotation of argument '{parameter.name}' does not resolve: {error}"
        raise RegistryError(text) from error


def _where(target: Callable[..., Any]) -> tuple[str, int]:
    try:
        return inspect.getsourcefile(target) or "?", inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        return "?", 0


def _place(file: str, line: int) -> str:
    path = Path(file)
    try:
        path = path.relative_to(Path.cwd())
    except ValueError:
        pass
    return f"{path}:{line}"


def _reason(error: BaseException) -> str:
    if isinstance(error, RegistryError):
        return str(error)
    trace = traceback.extract_tb(error.__traceback__)
    frames = [f for f in trace if "importlib" not in f.filename and f.filename != __file__]
    if isinstance(error, SyntaxError):
        place = f" ({_place(error.filename or '?', error.lineno or 0)})"
    else:
        place = f" ({_place(frames[-1].filename, frames[-1].lineno or 0)})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _import_all(kind: str) -> None:
    if not _state.entry_points_read:
        _state.entry_points_read = True
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            discover(entry.module)
    for package in list(_state.packages):
        _import_kind(package, kind)


def _import_kind(package: str, kind: str) -> None:
    if (package, kind) in _state.imported:
        return
    _state.imported.add((package, kind))
    module = _try_import(package)
    if module is None or not hasattr(module, "__path__"):
        return
    name = f"{package}.{kind}"
    if importlib.util.find_spec(name) is None:
        return
    folder = _try_import(name)
    for info in pkgutil.iter_modules(getattr(folder, "__path__", [])):
        _try_import(f"{name}.{info.name}")


def _try_import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:
        _state.broken[module] = _reason(error)
        return None


def _import_file(path: Path) -> None:
    module = f"hepar_plugin_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if module in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"{path} is not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        del sys.modules[module]
        raise RegistryError(f"{path} cannot be imported: {_reason(error)}") from error
