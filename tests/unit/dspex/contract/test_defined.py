"""To write the class of a message is to register it."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import pytest

from dspex.contract.defined import by_type


class Base:
    type: ClassVar[str]


def module(name: str, **classes: type) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(classes)
    return made


def written_in(name: str, base: type, **attributes: str) -> type:
    return type("Message", (base,), {"__module__": name, **attributes})


def test_what_a_module_defines_is_found_in_its_order() -> None:
    second, first = written_in("a", Base, type="a.2"), written_in("a", Base, type="a.1")
    bare, imported, other = (
        written_in("a", Base),
        written_in("b", Base, type="b.1"),
        written_in("a", object, type="a.3"),
    )
    found = by_type(Base, [module("a", second=second, first=first, bare=bare, imported=imported, other=other)])
    assert list(found.items()) == [("a.2", second), ("a.1", first)]


def test_one_type_is_of_one_class() -> None:
    one, two = written_in("a", Base, type="a.1"), written_in("b", Base, type="a.1")
    assert by_type(Base, [module("a", one=one, again=one)]) == {"a.1": one}
    with pytest.raises(TypeError, match=r"has the type of Message: a\.1"):
        by_type(Base, [module("a", one=one), module("b", two=two)])
