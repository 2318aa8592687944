"""Gates: what is paused or limited, of all that waits. What a gate holds takes no thread and no attempt.

A gate is of everything, a lane, a tenant, a program, an LM, a worker or a label, and exists only while it is paused,
limited, or closed by its provider.
"""

from store.gates.choice import Choice, with_room
from store.gates.known import KnownGates
from store.gates.rows import Gate, GateKey, Limits
from store.gates.scopes import Subject
from store.gates.settlement import Used, close, settle
from store.gates.steering import listing, locked, pause, remove_limit, resume, set_default_limit, set_limit, sweep

__all__ = [
    "Choice",
    "Gate",
    "GateKey",
    "KnownGates",
    "Limits",
    "Subject",
    "Used",
    "close",
    "listing",
    "locked",
    "pause",
    "remove_limit",
    "resume",
    "set_default_limit",
    "set_limit",
    "settle",
    "sweep",
    "with_room",
]
