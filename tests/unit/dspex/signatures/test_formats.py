"""Texts with a format or a pattern: what fits, what they become, and what a pattern costs."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dspex import Signature
from dspex.errors import InvalidInput, InvalidOutput
from dspex.signatures.formats import atoms


def of_type(schema: Any) -> Signature:
    return Signature.parse({"inputs": [{"name": "x", "type": schema}], "outputs": [{"name": "y", "type": schema}]})


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("date", "2026-11-30", date(2026, 11, 30)),
        ("date", "2024-02-29", date(2024, 2, 29)),
        ("date-time", "2026-11-30T09:00:00Z", datetime(2026, 11, 30, 9, tzinfo=UTC)),
        ("date-time", "2026-11-30t09:00:00.5+01:00", datetime(2026, 11, 30, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("date-time", "2026-11-30 09:00:00", datetime(2026, 11, 30, 9)),  # noqa: DTZ001
        ("time", "09:00:00", time(9)),
        ("time", "23:59:59.123456789Z", time(23, 59, 59, 123_456, tzinfo=UTC)),
        ("duration", "P1DT2H", timedelta(days=1, hours=2)),
        ("duration", "-PT0.5S", timedelta(seconds=-0.5)),
        ("duration", "P2W", timedelta(weeks=2)),
        ("duration", "P1Y2M", timedelta(days=425)),
        ("uuid", "01234567-89AB-4def-8123-456789abcdef", UUID("01234567-89ab-4def-8123-456789abcdef")),
        ("uri", "https://example.org", "https://example.org"),
        ("uri", "urn:isbn:0451450523", "urn:isbn:0451450523"),
        ("email", "a.b+c@example.org", "a.b+c@example.org"),
        ("email", "\u4f60@\u4f8b.cn", "\u4f60@\u4f8b.cn"),
        ("decimal", "12.50", Decimal("12.50")),
        ("decimal", "-1E+3", Decimal("-1E+3")),
    ],
)
def test_a_text_stays_as_it_is_and_an_object_is_made_of_it_for_the_caller(name: str, text: str, made: Any) -> None:
    signature = of_type({"type": "string", "format": name})
    assert signature.validate_inputs({"x": text}) == {"x": text}
    assert signature.validate_outputs({"y": text}) == {"y": text}
    outputs: Any = signature.output_model.model_validate({"y": text})
    assert outputs.y == made
    assert type(outputs.y) is type(made)
    assert signature.output_model.model_validate({"y": outputs.y}) == outputs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("date", "2026-02-30"),
        ("date", "2026-11-30T00:00:00"),
        ("date", "1577836800"),
        ("date", 1577836800),
        ("date", " 2026-11-30"),
        ("date", "\u0662\u0660\u0662\u0666-11-30"),
        ("date-time", "2026-11-30"),
        ("date-time", "2026-11-30T25:00:00Z"),
        ("date-time", "2026-11-30T09:00:00+25:00"),
        ("date-time", "1577836800"),
        ("time", "9:00"),
        ("time", "24:00:00"),
        ("duration", "P"),
        ("duration", "P1DT"),
        ("duration", "1 day"),
        ("duration", "P999999999Y"),
        ("uuid", "0123456789ab4def8123456789abcdef"),
        ("uuid", "{01234567-89ab-4def-8123-456789abcdef}"),
        ("uri", "/relative"),
        ("uri", "https://"),
        ("uri", "a b:c"),
        ("email", "someone"),
        ("email", "a@b@c"),
        ("email", "a@b..c"),
        ("email", "a b@c.d"),
        ("decimal", "NaN"),
        ("decimal", "1e99999"),
        ("decimal", "1" * 101),
        ("decimal", 1.5),
    ],
)
def test_what_has_another_form_is_refused(name: str, value: Any) -> None:
    signature = of_type({"type": "string", "format": name})
    with pytest.raises(InvalidInput, match=r"x: input should be "):
        signature.validate_inputs({"x": value})
    with pytest.raises(InvalidOutput):
        signature.validate_outputs({"y": value})
    with pytest.raises(ValueError, match="y"):
        signature.output_model.model_validate({"y": value})


def test_a_format_may_have_lengths_and_a_pattern() -> None:
    signature = of_type({"type": "string", "format": "uri", "pattern": "^https:", "maxLength": 20})
    assert signature.validate_inputs({"x": "https://example.org"})
    for wrong in ("http://example.org", "https://example.org/a"):
        with pytest.raises(InvalidInput):
            signature.validate_inputs({"x": wrong})


def test_a_pattern_that_would_take_other_engines_for_ever() -> None:
    signature = of_type({"type": "string", "pattern": "^(a+)+$"})
    with pytest.raises(InvalidInput, match=r"x: string should match pattern '\^\(a\+\)\+\$'"):
        signature.validate_inputs({"x": "a" * 100_000 + "b"})


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("abc", 3),
        ("(ab{3}){2}", 8),
        ("[a-z]{1,500}", 500),
        (r"\p{L}{3}", 3),
        ("a|b", 2),
        (r"[\]x]y", 2),
        (r"^\d{4}-\d{2}$", 9),
        ("a{0}", 1),
        ("((a{10}){10}){10}", 1000),
        (")((", 1),
        ("{3}", 0),
    ],
)
def test_a_pattern_counts_as_what_it_is_written_out(pattern: str, count: int) -> None:
    assert atoms(pattern) == count
