"""Texts in JSON and TOML that people wrote: each is read, or refused in a sentence."""

from __future__ import annotations

import pytest

from dspex.json_text import NotJson, NotToml, read_json, read_toml

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * DEEP + "]" * DEEP, "is not JSON: its values are too deep in one another"),
        ('{"a":' * DEEP, "is not JSON: its values are too deep in one another"),
        ("NaN", "is not JSON: NaN is no number of JSON"),
        ('{"a": -Infinity}', "is not JSON: -Infinity is no number of JSON"),
        ('{"b": 1, "a": {"c": 1, "c": 2}}', "has the key 'c' twice"),
        ("{", "is not JSON: "),
        ("", "is not JSON: "),
        ("9" * 5_000, "is not JSON: "),
    ],
)
def test_json_is_refused(text: str, said: str) -> None:
    with pytest.raises(NotJson) as refused:
        read_json(text)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "{a=" * DEEP + "1" + "}" * DEEP, "is not TOML: its values are too deep in one another"),
        ("a = " + "[" * DEEP, "is not TOML: its values are too deep in one another"),
        ("a = 1\na = 2", "is not TOML: Cannot overwrite a value"),
        ("a = ", "is not TOML: "),
        ("a = " + "9" * 5_000, "is not TOML: "),
    ],
)
def test_toml_is_refused(text: str, said: str) -> None:
    with pytest.raises(NotToml) as refused:
        read_toml(text)
    assert str(refused.value).startswith(said)


def test_many_keys_cost_their_number() -> None:
    keys = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(NotJson, match="has the key '199999' twice"):
        read_json(f'{{{keys},"199999":1}}')


def test_what_is_read() -> None:
    assert read_json(' {"a": [1, 2.5, null, true, "x"]} ') == {"a": [1, 2.5, None, True, "x"]}
    assert read_toml('a = 1\n[b]\nc = ["x"]\n') == {"a": 1, "b": {"c": ["x"]}}
