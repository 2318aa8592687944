"""Whether a message may be read at all: by its login, its type and its tenant, before its data is looked at.

To validate the data of a message can cost a thousand times what it cost to send it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dspex.contract.commands import Command
from dspex.errors import Denied
from workers.brokers.encoding import Origin
from workers.security.audit import Denial, audit
from workers.security.authorization import require_role
from workers.security.principals import Principals


@dataclass(frozen=True)
class Admission:
    """Of messages, while tenancy is on."""

    principals: Principals

    def __call__(self, origin: Origin, action: type[Command], tenant: str | None, subject: str | None = None) -> None:
        """Let a message pass, or leave an audit line.

        Args:
            tenant: what the envelope says.
            subject: the id that it is about, as its data says.

        Raises:
            Denied: its login is not known, belongs to another tenant, or has no role for this.
        """
        try:
            principal = self.principals.of(origin.user_id, tenant)
        except Denied as denied:
            reason = denied.message.partition(":")[0]
            login = origin.user_id or "nobody"
            known = self.principals.tenant_of(origin.user_id)
            audit.denied(Denial(action.type, login, known, _REASONS.get(reason, reason)), subject)
            raise
        require_role(principal, action, subject)


_REASONS = {"user-id": "the login is not known", "tenant": "for another tenant"}
