import importlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import registry
from registry import RegistryError, register

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A registry of its own with three kinds, and a current folder that is on the path."""
    monkeypatch.setattr(registry, "_state", registry._State(entry_points_read=True))
    registry.declare("loss", runtime=("classes",))
    registry.declare("sampler", runtime=("records",))
    registry.declare("metric")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield
    for module in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")) or module.startswith(
            ("house", "hepar_plugin_")
        ):
            del sys.modules[module]


def write(path, text):
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    importlib.invalidate_caches()
    return file


def loss_file(path, name="mine", arguments="self, classes: int, *, smooth: float = 1.0", body="pass"):
    return write(
        path,
        f"from registry import register\n\n\n@register('loss', '{name}')\nclass Mine:\n"
        f"    '''A loss.'''\n\n    def __init__({arguments}) -> None:\n        {body}\n",
    )


def refusal(path):
    with pytest.raises(RegistryError) as caught:
        registry.load(str(path))
    return str(caught.value)


# what a component is


def test_description_tells_core_from_configuration_and_gives_types_and_defaults():
    @register("loss", "mine")
    class Mine:
        """A loss of mine.

        More.
        """

        def __init__(self, classes: int, *, smooth: float, absent: "list[int] | None" = None) -> None: ...

    described = registry.get("loss", "mine")
    assert described.target is Mine
    assert described.runtime == ("classes",)
    assert [(a.name, a.annotation, a.required) for a in described.arguments] == [
        ("smooth", float, True),
        ("absent", list[int] | None, False),
    ]
    assert described.arguments[1].default is None
    assert described.doc == "A loss of mine.\n\nMore."
    line = Mine.__init__.__code__.co_firstlineno - 7
    assert described.place.endswith(f"test_registry.py:{line}")


def test_function_and_class_without_arguments_are_components_too():
    @register("metric", "plain")
    class Plain:
        pass

    @register("metric", "made")
    def made(*, size: int = 3):
        return size

    assert registry.names("metric") == ["made", "plain"]
    assert registry.get("metric", "plain").arguments == ()
    assert registry.get("metric", "made").target is made


# what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("self, *args", "*args is not allowed; list every argument, so that typos are errors"),
        ("self, **kwargs", "**kwargs is not allowed; list every argument, so that typos are errors"),
        ("self, *, smooth=1.0", "argument 'smooth' has no type annotation"),
        (
            "self, *, name: str",
            "an argument may not be called 'name'; the experiment file uses that key",
        ),
        (
            "self, smooth: float = 1.0",
            "core offers no 'smooth' to a loss (it offers classes); put configuration arguments after the *",
        ),
        (
            "self, *, smooth: 'Nowhere' = 1.0",
            "the annotation of argument 'smooth' does not resolve: name 'Nowhere' is not defined",
        ),
    ],
)
def test_signature_is_refused_with_its_place(arguments, message):
    loss_file("bad.py", arguments=arguments)
    assert refusal("bad.py") == f"{Path('bad.py').resolve()} cannot be imported: bad.py:4  loss 'mine': {message}"


def test_kind_that_offers_nothing_says_so():
    write(
        "bad.py",
        "from registry import register\n\n\n@register('metric', 'm')\nclass M:\n"
        "    def __init__(self, pair):\n        pass\n",
    )
    assert refusal("bad.py").endswith(
        "bad.py:4  metric 'm': core offers no 'pair' to a metric (it offers nothing); "
        "put configuration arguments after the *"
    )


def test_unknown_kind_is_refused_with_the_nearest():
    write("bad.py", "from registry import register\n\n\n@register('lose', 'm')\nclass M:\n    pass\n")
    assert refusal("bad.py").endswith("bad.py:4  lose 'm': unknown kind 'lose', did you mean 'loss'?")


def test_check_of_a_kind_refuses_with_its_own_words():
    registry.declare("hook", check=lambda target: None if hasattr(target, "on_start") else "it listens to nothing")
    write("bad.py", "from registry import register\n\n\n@register('hook', 'h')\nclass H:\n    pass\n")
    assert refusal("bad.py").endswith("bad.py:4  hook 'h': it listens to nothing")


def test_name_given_twice_is_refused_with_both_places_and_stays_refused():
    loss_file("a.py")
    write("b.py", "\n\n" + Path("a.py").read_text())
    registry.load("a.py")
    both = "loss 'mine' is registered twice: a.py:4 and b.py:6"
    assert refusal("b.py") == f"{Path('b.py').resolve()} cannot be imported: {both}"
    with pytest.raises(RegistryError) as caught:
        registry.get("loss", "mine")
    assert str(caught.value) == both


def test_name_taken_by_a_file_before_the_package_is_imported_is_refused_too():
    loss_file("house1/loss/mine.py")
    loss_file("a.py")
    registry.discover("house1")
    registry.load("a.py")
    with pytest.raises(RegistryError) as caught:
        registry.get("loss", "mine")
    assert str(caught.value) == "loss 'mine' is registered twice: a.py:4 and house1/loss/mine.py:4"


# finding


def test_unknown_name_lists_what_there_is_and_suggests_the_nearest():
    for name in ("dice", "cross_entropy"):
        loss_file(f"{name}.py", name)
        registry.load(f"{name}.py")
    with pytest.raises(RegistryError) as caught:
        registry.get("loss", "dyce")
    assert str(caught.value) == "unknown loss 'dyce', did you mean 'dice'?\n  known: cross_entropy, dice"
    with pytest.raises(RegistryError) as caught:
        registry.get("metric", "dice")
    assert str(caught.value) == "unknown metric 'dice'\n  known: none"
    with pytest.raises(RegistryError) as caught:
        registry.get("los", "dice")
    assert str(caught.value) == "unknown kind 'los', did you mean 'loss'?\n  known: loss, sampler, metric"


def test_modules_of_a_kind_are_imported_when_that_kind_is_first_asked_for():
    loss_file("house2/loss/mine.py")
    write("house2/sampler.py", "raise SystemError('a sampler was imported')\n")
    registry.discover("house2")
    assert "house2" not in sys.modules
    assert registry.names("loss") == ["mine"]
    assert "house2.loss.mine" in sys.modules
    assert "house2.sampler" not in sys.modules
    assert registry.broken() == {}


def test_broken_plugin_harms_no_other_and_is_named_when_a_name_is_missing():
    loss_file("house3/loss/good.py", "good")
    write("house3/loss/bad.py", "import not_installed_anywhere\n")
    write("house3/loss/worse.py", "def half(:\n")
    registry.discover("house3")
    assert registry.names("loss") == ["good"]
    assert registry.get("loss", "good").name == "good"
    with pytest.raises(RegistryError) as caught:
        registry.get("loss", "bad")
    assert str(caught.value) == (
        "unknown loss 'bad'\n  known: good\n"
        "  could not import house3.loss.bad: ModuleNotFoundError: No module named 'not_installed_anywhere' "
        "(house3/loss/bad.py:1)\n"
        "  could not import house3.loss.worse: SyntaxError: invalid syntax (worse.py, line 1) (house3/loss/worse.py:1)"
    )
    assert set(registry.broken()) == {"house3.loss.bad", "house3.loss.worse"}


def test_package_that_cannot_be_imported_at_all_harms_no_other():
    loss_file("house4/loss.py", "good")
    write("house5/__init__.py", "1 / 0\n")
    registry.discover("house4", "house5")
    assert registry.names("loss") == ["good"]
    assert registry.broken() == {"house5": "ZeroDivisionError: division by zero (house5/__init__.py:1)"}


def test_entry_points_are_read_when_a_kind_is_first_asked_for(tmp_path):
    loss_file("house6/loss.py", "from_outside")
    write("house6-1.dist-info/METADATA", "Name: house6\nVersion: 1\n")
    write("house6-1.dist-info/entry_points.txt", "[hepar.plugins]\nanything = house6\n")
    registry._state.entry_points_read = False
    assert "from_outside" in registry.names("loss")


# loading what a user names


def test_loaded_package_and_file_are_known_at_once_and_may_be_loaded_twice():
    loss_file("house7/loss/one.py", "one")
    loss_file("two.py", "two")
    for _ in range(2):
        registry.load("house7")
        registry.load("two.py")
    assert registry.names("loss") == ["one", "two"]


def test_two_files_of_one_name_are_two_plugins():
    loss_file("a/mine.py", "first")
    loss_file("b/mine.py", "second")
    registry.load("a/mine.py")
    registry.load("b/mine.py")
    assert registry.names("loss") == ["first", "second"]


def test_missing_file_package_and_module_are_said():
    assert refusal("nowhere.py") == "no such file: nowhere.py"
    assert refusal("nowhere") == "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"


def test_user_named_package_with_a_broken_module_is_an_error_at_any_depth():
    loss_file("house8/inner/loss/good.py", "good")
    write("house8/inner/loss/bad.py", "1 / 0\n")
    assert refusal("house8.inner") == (
        "house8.inner cannot be imported: "
        "house8.inner.loss.bad: ZeroDivisionError: division by zero (house8/inner/loss/bad.py:1)"
    )


def test_user_named_file_that_fails_says_where_and_can_be_mended():
    file = write("mine.py", "x = 1\n1 / 0\n")
    assert refusal("mine.py") == f"{file.resolve()} cannot be imported: ZeroDivisionError: division by zero (mine.py:2)"
    loss_file("mine.py")
    registry.load("mine.py")
    assert registry.names("loss") == ["mine"]


def test_spawned_process_knows_the_same_components():
    registry.declare("postprocess")
    loss_file("house9/loss.py", "packed")
    registry.discover("house9")
    registry.load(str(HERE / "outside" / "one_file.py"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(registry.restore, registry.sources()).result(60)
        there = pool.submit(registry.names, "loss").result(60)
    assert {"packed", "soft_iou"} <= set(there)
    assert there == registry.names("loss")


# itself


def test_imports_the_standard_library_only():
    import ast

    tree = ast.parse((HERE.parent / "registry.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    assert found <= set(sys.stdlib_module_names)
