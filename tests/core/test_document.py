"""YAML's traps, and the dump that reads back the same."""

import math

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import config
from core.config import ConfigError

# scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3E4", 3e4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2", -2),
        ("+5", 5),
        ("0", 0),
        ("-.inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_booleans_and_null(text, value):
    read_back = config.parse(f"a: {text}").plain()["a"]
    assert read_back == value
    assert type(read_back) is type(value)


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "no", "y", "N", "2020-01-01", "1:30", "12:30:45", "1_000", "0x1F", "0o17", "=", "NaN"]
)
def test_what_other_readers_take_for_something_else_is_a_word(word):
    assert config.parse(f"a: {word}").plain() == {"a": word}


@pytest.mark.parametrize("text", ["012", "-007", "+00"])
def test_a_number_that_begins_with_zero_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        config.parse(f"train: {{seed: {text}}}", "x.yaml")
    assert caught.value.problems == [
        f"x.yaml  train.seed: a number may not begin with 0: {text}; write {int(text)} or '{text}'"
    ]


def test_a_quoted_number_is_a_word():
    assert config.parse("""{a: "012", b: '1e-3', c: 'true'}""").plain() == {"a": "012", "b": "1e-3", "c": "true"}


# the dump

WORDS = st.text() | st.sampled_from(
    ["null", "~", "on", "no", "true", "True", "1e-3", "012", "12", "-", "- a", "a: b", "#x", "<<", "=", "2020-01-01",
     "1:30", ".inf", "", " ", " a ", "a\nb", "a\n", "\n", "\ta", "größer", "肝臓", "🫀", "'", '"', "{a}", "[b]", "!x",
     "&a", "*a", "%x", "@", "`", "\x85", "\u2028", "\x00", "---", "...", "x" * 300, "a b " * 80]
)  # fmt: skip
KEYS = st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True) | st.sampled_from(["null", "on", "1", "1e-3", "true"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def same(first, second):
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, list):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return type(first) is type(second) and first == second


@settings(max_examples=300, deadline=None)
@given(VALUES)
@example({"train": {"lr": 1e-05, "big": 1e22, "low": -math.inf, "empty": {}, "none": []}})
def test_what_is_dumped_is_read_back_the_same(value):
    assert same(value, config.parse(config.dump(value)).plain())


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, st.text() | st.integers() | st.floats(allow_nan=False), max_size=4))
def test_a_dump_is_yaml_for_others_too(value):
    assert isinstance(yaml.load(config.dump(value), Loader=yaml.BaseLoader), dict)


def test_not_a_number_survives_the_dump():
    assert math.isnan(config.parse(config.dump({"a": math.nan})).plain()["a"])


def test_the_dump_keeps_the_order_of_keys():
    assert config.dump({"b": 1, "a": 2}) == "{b: 1, a: 2}\n"
