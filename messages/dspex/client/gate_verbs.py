"""The verbs of pauses and limits, as a part of the code interface (`dspex.client.interface`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dspex.client.arguments import arguments_checked
from dspex.client.port import Port
from dspex.contract.gates import GateKind, GateView, Limits, ListGates, Pause, RemoveLimit, Resume, Scope, SetLimit
from dspex.contract.results import Page


@arguments_checked
class GateVerbs(Port):
    """The part of the client that steers what waits.

    Each verb takes what it is for as `dspex.contract.gates.Scope` does: `"program", program_id`, `"lane", "bulk"`,
    `"lm", "fast"`, `"label", "customer=7"`, `"worker", name`, `"tenant"`, `"everything"`.
    """

    def pause(self, kind: GateKind | str, name: UUID | str | None = None, *, reason: str | None = None) -> GateView:
        """Choose no more executions of a scope until it is resumed. What runs goes on to its end.

        Args:
            reason: told wherever the pause is seen.
        """
        return self.call(Pause(scope=_scope(kind, name), reason=reason), GateView)

    def resume(self, kind: GateKind | str, name: UUID | str | None = None) -> GateView:
        """Go on with what was paused."""
        return self.call(Resume(scope=_scope(kind, name)), GateView)

    def set_limit(
        self, kind: GateKind | str, name: UUID | str | None = None, *, limits: Limits | Mapping[str, Any]
    ) -> GateView:
        """Replace the limits of a tenant, a program, an LM or a label.

        Args:
            limits: `Limits`, or its members: `{"in_flight": 10, "tokens_per_minute": 200_000}`.
        """
        given = limits if isinstance(limits, Limits) else Limits.model_validate(limits)
        return self.call(SetLimit(scope=_scope(kind, name), limits=given), GateView)

    def remove_limit(self, kind: GateKind | str, name: UUID | str | None = None) -> GateView:
        """Take the limits of a scope away."""
        return self.call(RemoveLimit(scope=_scope(kind, name)), GateView)

    def list_gates(self, /, **filters: Any) -> Page[GateView]:
        """A page of what is paused or limited; the filters are the fields of `dspex.contract.gates.ListGates`."""
        return self.call(ListGates(**filters), Page[GateView])


def _scope(kind: GateKind | str, name: UUID | str | None) -> Scope:
    return Scope.model_validate({"kind": kind, "name": None if name is None else str(name)})
