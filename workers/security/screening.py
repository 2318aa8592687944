"""Checks login, type and tenant of a message before its data is validated.

Validating the data of a message can cost a thousand times as much as sending it.
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
    """The check of messages while tenancy is on."""

    principals: Principals

    def __call__(self, origin: Origin, action: type[Command], tenant: str | None, subject: str | None = None) -> None:
        """Check a message; leave an audit line if it is denied.

        Args:
            tenant: the tenant in the envelope.
            subject: the id of its subject, from the unvalidated data.

        Raises:
            Denied: the login is unknown, belongs to another tenant, or has no role for the command.
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
