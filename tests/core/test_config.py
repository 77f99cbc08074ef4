"""Reading experiment files: the text of every mistake, `extends`, overrides."""

import pytest

from core import config
from core.config import ConfigError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(**files):
    for name, text in files.items():
        with open(f"{name}.yaml", "w") as file:
            file.write(text)


def read(name="x.yaml"):
    from pathlib import Path

    return config.read(Path(name)).plain()


def refusal(name="x.yaml"):
    with pytest.raises(ConfigError) as caught:
        read(name)
    return str(caught.value)


def overridden(text, *overrides):
    root = config.parse(text)
    config.override(root, overrides)
    return root.plain()


def complaint(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        overridden(text, *overrides)
    return caught.value.problems


# files that cannot be


def test_every_key_given_twice_is_named_with_both_places():
    write(x="a: 1\nloss:\n  - name: dice\n    smooth: 1\n    smooth: 2\na: 3\n")
    assert refusal() == (
        "2 problems in the experiment\n"
        "x.yaml:5  loss[0].smooth: given twice (first at x.yaml:4)\n"
        "x.yaml:6  a: given twice (first at x.yaml:1)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2\n", "x.yaml:2  not YAML: found character '\\t' that cannot start any token; "),
        ("a: [1\nb: 2\n", "x.yaml:2  not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2  not YAML: but found another document"),
        ("a: *no\n", "x.yaml:1  not YAML: found undefined alias 'no'"),
        ("a: &x\n  - *x\n", "x.yaml:1  an alias contains itself"),
        ("a:\n  <<: {b: 1}\n", "x.yaml:2  <<: merge keys are not supported; use extends"),
        ("a: 1\nb: !!int x\n", "x.yaml:2  tags such as tag:yaml.org,2002:int are not supported"),
        ("a: !mine {b: 1}\n", "x.yaml:1  tags such as !mine are not supported"),
        ("a: !!python/object/apply:os.getcwd []\n", "x.yaml:1  tags such as tag:yaml.org,2002:python/object/apply"),
        ("? [1]\n: 2\n", "x.yaml:1  a key must be a word"),
        ("", "x.yaml: want a mapping of sections (source, model, loss, ...)"),
        ("# nothing\n", "x.yaml: want a mapping of sections (source, model, loss, ...)"),
        ("- 1\n", "x.yaml: want a mapping of sections (source, model, loss, ...)"),
        ("just words\n", "x.yaml: want a mapping of sections (source, model, loss, ...)"),
    ],
)
def test_malformed_files_are_refused_with_the_line(text, message):
    write(x=text)
    assert refusal().startswith("1 problem in the experiment\n" + message)


def test_tabs_come_with_what_to_do():
    write(x="\ta: 1\n")
    assert refusal().endswith("; indent with spaces, not tabs")


def test_an_alias_is_a_copy_so_that_overriding_one_leaves_the_other():
    assert overridden("{a: &x {k: 1}, b: *x}", "b.k=2") == {"a": {"k": 1}, "b": {"k": 2}}


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes("a: Leberlappen größer".encode("latin-1"))
    assert refusal().startswith("1 problem in the experiment\nx.yaml: cannot be read: 'utf-8' codec can't decode byte")


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read() == {"a": 1}


def test_a_missing_file_suggests_its_neighbour():
    write(quickstart="a: 1\n")
    assert refusal("quikstart.yaml") == (
        "1 problem in the experiment\nquikstart.yaml: no such file, did you mean 'quickstart.yaml'?"
    )
    assert refusal("no/x.yaml").endswith("no/x.yaml: no such file (and no such folder: no)")


# extends


def test_mappings_merge_key_by_key_and_lists_are_replaced():
    write(
        base="train: {epochs: 3, early_stop: {patience: 5, mode: min}}\nloss: [{name: a}, {name: b}]\n",
        x="extends: base.yaml\ntrain: {early_stop: {patience: 9}}\nloss: [{name: c}]\nnew: 1\n",
    )
    assert read() == {
        "train": {"epochs": 3, "early_stop": {"patience": 9, "mode": "min"}},
        "loss": [{"name": "c"}],
        "new": 1,
    }


@pytest.mark.parametrize("top", ["{name: plain}", "plain"])
def test_a_component_of_another_name_replaces_the_node_so_that_old_arguments_cannot_leak(top):
    write(base="model: {name: unet, encoder: resnet34}\n", x=f"extends: base.yaml\nmodel: {top}\n")
    assert read() == {"model": {"name": "plain"}}


@pytest.mark.parametrize("top", ["{name: unet, depth: 4}", "{depth: 4}"])
def test_the_same_name_or_none_keeps_the_other_arguments(top):
    write(base="model: {name: unet, encoder: resnet34}\n", x=f"extends: base.yaml\nmodel: {top}\n")
    assert read() == {"model": {"name": "unet", "encoder": "resnet34", "depth": 4}}


def test_the_short_form_means_the_same_as_the_long_one_on_either_side():
    write(
        base="model: {name: unet, encoder: resnet34}\nsampler: uniform\n",
        x="extends: base.yaml\nmodel: unet\nsampler: {length: 5}\n",
    )
    assert read() == {"model": {"name": "unet", "encoder": "resnet34"}, "sampler": {"name": "uniform", "length": 5}}


def test_a_stray_name_at_the_top_level_does_not_throw_the_base_away():
    write(base="store: s\n", x="extends: base.yaml\nname: my experiment\n")
    assert read() == {"store": "s", "name": "my experiment"}


def test_of_several_bases_the_later_wins_and_paths_are_relative_to_the_file_that_says_them(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.yaml").write_text("extends: more/zero.yaml\nb: one\nc: one\n")
    (tmp_path / "deep" / "more").mkdir()
    (tmp_path / "deep" / "more" / "zero.yaml").write_text("a: zero\nb: zero\n")
    write(two="c: two\n", x="extends: [deep/one.yaml, two.yaml]\nd: x\n")
    assert read() == {"a": "zero", "b": "one", "c": "two", "d": "x"}


def test_values_keep_the_place_where_they_were_said(tmp_path):
    write(base="# comment\na: {b: 1}\n", x="extends: base.yaml\na:\n  c: 2\n")
    node = config.read(tmp_path / "x.yaml").value["a"].value
    assert (node["b"].place, node["c"].place) == (f"{tmp_path}/base.yaml:2", f"{tmp_path}/x.yaml:3")


def test_a_cycle_is_named():
    write(a="extends: b.yaml\n", b="extends: c.yaml\n", c="extends: a.yaml\n")
    assert refusal("a.yaml") == (
        "1 problem in the experiment\na.yaml  extends: a cycle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    )


def test_the_same_base_twice_is_no_cycle():
    write(base="a: 1\n", one="extends: base.yaml\nb: 1\n", two="extends: base.yaml\nc: 1\n")
    write(x="extends: [one.yaml, two.yaml]\n")
    assert read() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bse.yaml", "x.yaml:1  extends: no such file: bse.yaml, did you mean 'base.yaml'?"),
        ("no/base.yaml", "x.yaml:1  extends: no such file: no/base.yaml (and no such folder: no)"),
        ("5", "x.yaml:1  extends: want a path, got 5"),
        ("{a: 1}", "x.yaml:1  extends: want a path, got {'a': 1}"),
        ("[base.yaml, null]", "x.yaml:1  extends: want a path, got None"),
    ],
)
def test_what_cannot_be_extended(value, message):
    write(base="a: 1\n", x=f"extends: {value}\n")
    assert refusal() == f"1 problem in the experiment\n{message}"


# overrides


@pytest.mark.parametrize(
    ("override", "result"),
    [
        ("a.b=2", {"a": {"b": 2}, "l": [{"name": "u", "k": 1}], "s": "u", "n": None}),
        ("a.b=c=d", {"a": {"b": "c=d"}, "l": [{"name": "u", "k": 1}], "s": "u", "n": None}),
        ("a.b=", {"a": {"b": None}, "l": [{"name": "u", "k": 1}], "s": "u", "n": None}),
        ("a.c=[1, 2e1]", {"a": {"b": 1, "c": [1, 20.0]}, "l": [{"name": "u", "k": 1}], "s": "u", "n": None}),
        ("a={c: 2}", {"a": {"b": 1, "c": 2}, "l": [{"name": "u", "k": 1}], "s": "u", "n": None}),
        ("l[0].k=2", {"a": {"b": 1}, "l": [{"name": "u", "k": 2}], "s": "u", "n": None}),
        ("l[0]={k: 2}", {"a": {"b": 1}, "l": [{"name": "u", "k": 2}], "s": "u", "n": None}),
        ("l[0]=v", {"a": {"b": 1}, "l": [{"name": "v"}], "s": "u", "n": None}),
        ("l=[]", {"a": {"b": 1}, "l": [], "s": "u", "n": None}),
        ("s=v", {"a": {"b": 1}, "l": [{"name": "u", "k": 1}], "s": "v", "n": None}),
        ("s.k=2", {"a": {"b": 1}, "l": [{"name": "u", "k": 1}], "s": {"name": "u", "k": 2}, "n": None}),
        ("n.k=2", {"a": {"b": 1}, "l": [{"name": "u", "k": 1}], "s": "u", "n": {"k": 2}}),
    ],
)
def test_an_override_changes_what_it_names(override, result):
    assert overridden("{a: {b: 1}, l: [{name: u, k: 1}], s: u, n: null}", override) == result


@pytest.mark.parametrize("overrides", [("s.k=5", "s.name=v"), ("s.name=v", "s.k=5"), ("s.k=5", "s=v")])
def test_a_new_name_comes_first_in_whatever_order_it_is_said(overrides):
    assert overridden("{s: {name: u, old: 1, k: 1}}", *overrides) == {"s": {"name": "v", "k": 5}}


def test_the_last_of_equal_paths_wins():
    assert overridden("{a: {b: 1}}", "a.b=2", "a.b=3") == {"a": {"b": 3}}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a.b", "command line  'a.b': want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1"),
        ("--resum=1", "command line  '--resum=1': want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1"),
        ("a..b=1", "command line  'a..b=1': want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1"),
        ("l[x]=1", "command line  'l[x]=1': want path=value, e.g. optimizer.lr=1e-3 or loss[0].smooth=1"),
        ("l[1].k=1", "command line  l[1].k: 'l' has 1 entry: [0] to [0]"),
        ("m[2]=1", "command line  m[2]: 'm' has 2 entries: [0] to [1]"),
        ("e[0]=1", "command line  e[0]: 'e' has no entries"),
        ("l.k=1", "command line  l.k: 'l' is a list; say which entry: l[0].k"),
        ("a[0]=1", "command line  a[0]: 'a' is not a list"),
        ("a.b.c=1", "command line  a.b.c: 'a.b' is 1, not a mapping"),
        ("los[0].k=1", "command line  los[0].k: no such list, did you mean 'loss'?"),
        ("a.b=[1", "command line  not YAML: expected ',' or ']', but got '<stream end>' (in 'a.b=[1')"),
        ("a={b: 1, b: 2}", "command line  b: given twice (first at command line) (in 'a={b: 1, b: 2}')"),
        ("a.b=007", "command line  a number may not begin with 0: 007; write 7 or '007' (in 'a.b=007')"),
    ],
)
def test_an_override_that_cannot_be_is_refused(override, problem):
    text = "{a: {b: 1}, l: [{k: 1}], m: [1, 2], e: [], loss: [{k: 1}]}"
    assert complaint(text, override) == [problem]


def test_all_wrong_overrides_are_named_at_once():
    assert len(complaint("{a: {b: 1}}", "x", "a.b.c=1", "a.b=2", "y[0]=1")) == 3
