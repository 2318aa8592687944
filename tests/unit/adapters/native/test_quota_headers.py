"""What a successful answer says of its provider's limits."""

from __future__ import annotations

import pytest

from adapters.native.failures.waits import reset_in_answer

LEFT = "x-ratelimit-remaining-requests"
RESET = "x-ratelimit-reset-requests"
LIMIT = "x-ratelimit-limit-requests"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({LIMIT: "60", LEFT: "0", RESET: "1s"}, 1.0),
        ({LIMIT: "60", LEFT: "0", RESET: "6m0s"}, 60.0),
        ({LIMIT: "60", LEFT: "0", RESET: "604800"}, 60.0),
        ({LIMIT: "60", LEFT: "1", RESET: "1s"}, None),
        ({LIMIT: "1", LEFT: "0", RESET: "1s"}, None),
        ({LIMIT: "0", LEFT: "0", RESET: "1s"}, None),
        ({LIMIT: "many", LEFT: "0", RESET: "1s"}, None),
        ({LEFT: "0", RESET: "1s"}, None),
        ({LIMIT: "60", LEFT: "0"}, None),
        ({LIMIT: "60", LEFT: "0", RESET: "soon"}, None),
        ({LIMIT: "60", LEFT: "0", RESET: "0s"}, None),
        ({LIMIT: "60", RESET: "1s"}, None),
        (
            {
                LIMIT: "60",
                LEFT: "0",
                RESET: "1s",
                "X-RateLimit-Limit-Tokens": "9000",
                "X-RateLimit-Remaining-Tokens": "0",
                "X-RateLimit-Reset-Tokens": "2.5s",
            },
            2.5,
        ),
        (
            {
                "anthropic-ratelimit-input-tokens-limit": "9000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2999-01-01T00:00:00Z",
            },
            None,
        ),
        ({"retry-after": "20"}, None),
    ],
)
def test_how_long_nothing_is_left(headers: dict[str, str], seconds: float | None) -> None:
    assert reset_in_answer(list(headers.items())) == seconds
