"""Webhooks: endpoints, what is to be delivered to them, and what came of it.

A delivery is written by the transaction that ends an execution, one for each endpoint that wants it. Whoever delivers
takes what is due for a while (`due_at` moves), sends it, and settles it; where that comes to nothing it is due again.
Every later write carries the lock_version with which it was taken.
"""

from store.webhooks.endpoints import (
    MAX_REGISTERED,
    announced,
    announcements,
    anything_to_announce,
    delete,
    disable,
    enable,
    endpoint,
    endpoints,
    register,
    rotate,
    update,
)
from store.webhooks.fan_out import End, end_of, fan_out
from store.webhooks.log import LoggedAttempt, attempts, deliveries, delivery, replay, replayable, waiting
from store.webhooks.rows import Delivery, Endpoint
from store.webhooks.sending import Due, Mine, Settled, anything_due, places, release, settle, take

__all__ = [
    "MAX_REGISTERED",
    "Delivery",
    "Due",
    "End",
    "Endpoint",
    "LoggedAttempt",
    "Mine",
    "Settled",
    "announced",
    "announcements",
    "anything_due",
    "anything_to_announce",
    "attempts",
    "delete",
    "deliveries",
    "delivery",
    "disable",
    "enable",
    "end_of",
    "endpoint",
    "endpoints",
    "fan_out",
    "places",
    "register",
    "release",
    "replay",
    "replayable",
    "rotate",
    "settle",
    "take",
    "update",
    "waiting",
]
