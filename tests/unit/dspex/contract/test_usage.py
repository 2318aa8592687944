"""What a usage keeps: the sums of all, and the details of the last."""

from __future__ import annotations

from dspex import LMCall, Usage
from dspex.contract.events import Try

ONE = Usage(
    calls=1,
    input_tokens=2,
    output_tokens=3,
    cost=0.5,
    lm_calls=(LMCall(model="m", cost=0.5),),
    tries=(Try(adapter_type="a"),),
)


def test_the_details_are_bounded_and_the_sums_are_of_all() -> None:
    """One that is turned away again and again adds to its row each time."""
    total = sum([ONE] * 600, Usage())
    assert (total.calls, total.input_tokens, total.output_tokens, total.cost) == (600, 1200, 1800, 300.0)
    assert (len(total.lm_calls), len(total.tries)) == (500, 500)


def test_so_are_those_of_one_run() -> None:
    run = Usage(calls=700, lm_calls=tuple(LMCall(model=str(number)) for number in range(700)))
    assert [call.model for call in (Usage() + run).lm_calls] == [str(number) for number in range(200, 700)]
