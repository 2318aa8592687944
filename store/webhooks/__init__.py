"""Webhooks: endpoints, deliveries, and the log of their attempts.

The transaction that ends an execution inserts a delivery for each endpoint that wants it. A deliverer takes due
deliveries for a while (by moving `due_at`), sends them, and settles them. If it dies, they become due again. Every
later write contains the lock_version with which the delivery was taken.
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
