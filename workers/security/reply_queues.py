"""Where answers may go.

They are published under the workers' own login, which may write to every queue. So the queue that a message names must
be its sender's: one that the broker has named, which nobody can guess, or one that begins with the sender's login.
"""

from __future__ import annotations

import re

from dspex.errors import ForbiddenReplyQueue

# A queue that the server named (https://www.rabbitmq.com/docs/queues#server-named-queues), and direct reply-to as
# RabbitMQ rewrites it (https://www.rabbitmq.com/docs/direct-reply-to): clients cannot declare queues called `amq.`.
_SERVER_NAMED = re.compile(r"amq\.(gen-[A-Za-z0-9_-]{16,}|rabbitmq\.reply-to\.[A-Za-z0-9_.+/=-]{16,})")
_OURS = "dspex."
_DIRECT = "amq.rabbitmq.reply-to."


def checked(reply_to: str | None, login: str | None) -> str | None:
    """The queue that a message names, as it is kept until the answer is sent; None: it names none.

    Args:
        login: the AMQP property `user-id`, which RabbitMQ has checked; None: it is not set.

    Raises:
        ForbiddenReplyQueue: answers may not go there.
    """
    if reply_to is None or _SERVER_NAMED.fullmatch(reply_to):
        return reply_to
    if login and reply_to.startswith(f"{login}.") and not reply_to.startswith(_OURS):
        return f"{login}\n{reply_to}"
    raise ForbiddenReplyQueue(
        "reply_to: answers go to a queue that the broker has named, to amq.rabbitmq.reply-to, or to one called "
        "<login>.…, with the login as user-id"
    )


def kept_queue(kept: str) -> str | None:
    """The queue of what is kept; None: answers may not go there. Rows from before kept whatever was named."""
    login, _, reply_to = kept.rpartition("\n")
    try:
        checked(reply_to, login)
    except ForbiddenReplyQueue:
        return None
    return reply_to


def direct(queue: str) -> bool:
    """Whether it is no queue, but whoever asked, by direct reply-to: what is sent there always counts as unroutable."""
    return queue.startswith(_DIRECT)


def answer_queue(reply_to: str | None, login: str | None) -> str | None:
    """The queue that a message names; None: it names none, or answers may not go there."""
    try:
        checked(reply_to, login)
    except ForbiddenReplyQueue:
        return None
    return reply_to
