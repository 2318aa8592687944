"""Every error DSPex raises on purpose, with a stable code that programs may match on.

DspexError
├── MessageError              a message is rejected: it is recorded and dead-lettered
│   ├── MalformedMessage      malformed_message: not JSON, or not a CloudEvents 1.0 envelope
│   ├── MessageTooLarge       message_too_large
│   ├── UnknownMessageType    unknown_message_type
│   ├── InvalidMessage        invalid_message: a field or an AMQP property is missing, unknown or wrong
│   ├── MessageExpired        message_expired: it waited longer than its AMQP `expiration`
│   └── MessageUndelivered    message_undelivered: the broker took it out of its queue for another reason
├── InvalidSignature          invalid_signature: fields or arrow form
├── InvalidModule             invalid_module: a reference to signatures in a module that cannot be read
│   └── ModuleNotAllowed      module_not_allowed: no operator has allowed its import
├── InvalidValues             invalid_values: an argument is invalid
│   ├── InvalidInput          invalid_input: inputs do not fit the signature
│   └── InvalidOutput         invalid_output: outputs do not fit the signature
├── NotFound                  not_found
├── Conflict                  conflict: the id or the name is taken by something else
├── BreakingChange            breaking_change: a new signature breaks callers of the old one
├── IllegalTransition         illegal_transition: the entity's status does not allow the change
├── Denied                    denied: the principal may not do this
├── ForbiddenAddress          forbidden_address: webhooks may not go there
├── ForbiddenReplyQueue       forbidden_reply_to: answers may not go to the queue that the message names
├── InvalidWebhook            invalid_webhook: a received webhook is not proven to be from DSPex
├── InvalidBlob               invalid_blob: a digest, media type or address of blobs is wrong
├── BlobTooLarge              blob_too_large: more than the cap of blobs
├── BlobCorrupt               blob_corrupt: a body in the store is not that of its digest
├── BlobsUnavailable          blobs_unavailable: the blob store cannot be reached or written to
├── NotTheOwner               not_the_owner: another database refers to what is in the blob store; nothing is removed
├── AnswerTooLarge            answer_too_large: more than the broker takes
├── RequestFailed             (the worker's code) a request was answered with an error
├── ExecutionError            (`dspex.contract.results`; one of `dspex.ErrorCode`) an execution ended without outputs
├── NoAnswer                  no_answer: a request was not answered in time
├── PublishError              publish_failed: not confirmed by the broker
│   ├── QueueFull             queue_full: a queue has no room for the message
│   ├── TooLargeForBroker     too_large_for_broker: more than its `max_message_size`
│   ├── Unroutable            unroutable: no queue is bound for the message
│   ├── NotDeclared           not_declared: there is no such exchange
│   ├── PublishDenied         publish_denied: the login may not publish there
│   └── BrokerUnavailable     broker_unavailable
├── SettingsError             invalid_setting
├── DatabaseUnavailable       database_unavailable: the database cannot do it now; the request itself may be fine
└── AdapterError              (`adapters.port`) its code is one of `dspex.ErrorCode`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dspex.text import masked, visible, visible_lines


class Problem(NamedTuple):
    """One thing that is wrong: the dotted path of the field, and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class DspexError(Exception):
    """Base of every error that DSPex raises on purpose.

    Attributes:
        code: stable and machine-readable, snake_case.
        message: one line for people. It names the field or setting and the way out; invisible characters are escaped,
            and passwords in URLs are masked.
    """

    code: str = "error"

    def __init__(self, message: str) -> None:
        # It may quote text from outside, and goes to terminals and logs.
        message = self._shown(masked(message))
        super().__init__(message)
        self.message = message

    @staticmethod
    def _shown(message: str) -> str:
        return visible(message)


class _Problems(DspexError):
    """An error about fields: `problems` names every wrong one."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class MessageError(_Problems):
    """A message is rejected: it is recorded and dead-lettered, and never retried."""

    code = "message_error"


class MalformedMessage(MessageError):
    """The body is not JSON, or the message is not a CloudEvent 1.0."""

    code = "malformed_message"


class MessageTooLarge(MessageError):
    """The body is larger than the cap."""

    code = "message_too_large"


class UnknownMessageType(MessageError):
    """No message has this `type`, or it is not a command."""

    code = "unknown_message_type"


class InvalidMessage(MessageError):
    """A field of the envelope or of its data, or an AMQP property, is missing, unknown or wrong."""

    code = "invalid_message"


class MessageExpired(MessageError):
    """It waited longer than its AMQP property `expiration` or its queue allows, because no worker took it in time."""

    code = "message_expired"


class MessageUndelivered(MessageError):
    """The broker removed it from its queue before a worker got it, for another reason, such as a full queue."""

    code = "message_undelivered"


class InvalidSignature(_Problems):
    """The fields or the arrow form of a signature are invalid."""

    code = "invalid_signature"


class InvalidModule(DspexError):
    """No signature can be read under a reference `package.module:Class` on this machine."""

    code = "invalid_module"


class ModuleNotAllowed(InvalidModule):
    """The module is under none of the import prefixes in the settings; nothing was imported."""

    code = "module_not_allowed"


class InvalidValues(_Problems):
    """Values do not fit a signature or the arguments of a verb. `problems` names every wrong field."""

    code = "invalid_values"


class InvalidInput(InvalidValues):
    """The inputs do not fit the signature."""

    code = "invalid_input"


class InvalidOutput(InvalidValues):
    """The outputs do not fit the signature."""

    code = "invalid_output"


class NotFound(DspexError):
    """No entity has this id."""

    code = "not_found"


class Conflict(DspexError):
    """The id or the unique name is taken by something else."""

    code = "conflict"


class BreakingChange(DspexError):
    """A new signature breaks callers of the old one."""

    code = "breaking_change"


class IllegalTransition(DspexError):
    """The state machine of the entity does not allow this change."""

    code = "illegal_transition"


class Denied(DspexError):
    """The principal may not do this."""

    code = "denied"


class ForbiddenAddress(DspexError):
    """Webhooks may not go to this URL, its port, or an address of its host. The text never contains addresses."""

    code = "forbidden_address"


class ForbiddenReplyQueue(DspexError):
    """Answers may not go to the queue in `reply_to`, as it is not proven to be the sender's."""

    code = "forbidden_reply_to"


class InvalidWebhook(DspexError):
    """A received webhook is not proven to be from DSPex: its signature is missing, malformed, wrong or too old."""

    code = "invalid_webhook"


class InvalidBlob(DspexError):
    """A digest, a media type, a tenant or the address of a blob store is wrong, or a file cannot be read."""

    code = "invalid_blob"


class BlobTooLarge(DspexError):
    """A blob is larger than is allowed."""

    code = "blob_too_large"


class BlobCorrupt(DspexError):
    """The body in the blob store is not that of its digest. Upload it again."""

    code = "blob_corrupt"


class BlobsUnavailable(DspexError):
    """The blob store cannot be reached or written to. The request itself may be fine. The text has no secret in it."""

    code = "blobs_unavailable"


class NotTheOwner(DspexError):
    """Executions of another database may refer to what is in the blob store: nothing is removed from it."""

    code = "not_the_owner"


class AnswerTooLarge(DspexError):
    """The answer does not fit into one message. It can be read in a process with database access."""

    code = "answer_too_large"


class RequestFailed(DspexError):
    """A worker answered a request with an error. `code` is the worker's code, such as `not_found`.

    Attributes:
        problems: the wrong fields, if any.
    """

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)


class NoAnswer(DspexError):
    """A request was not answered in time. It may still be carried out; repeat it with the same ids."""

    code = "no_answer"


class PublishError(DspexError):
    """The broker did not confirm the message, which may be stored or not. Publish it again with the same id."""

    code = "publish_failed"


class QueueFull(PublishError):
    """A queue for the message is full, or cannot store it. Send it again later."""

    code = "queue_full"


class TooLargeForBroker(PublishError):
    """The message is larger than the broker's `max_message_size`. Send less, or raise it in `rabbitmq.conf`."""

    code = "too_large_for_broker"


class Unroutable(PublishError):
    """No queue is bound for the message: start a worker, or run `dspex declare`. For an answer: nobody waits for it."""

    code = "unroutable"


class NotDeclared(PublishError):
    """The exchange does not exist: start a worker, or run `dspex declare`. Running workers soon declare it again."""

    code = "not_declared"


class PublishDenied(PublishError):
    """The login lacks the broker's permission to publish there. The text contains the command that grants it."""

    code = "publish_denied"


class BrokerUnavailable(PublishError):
    """The broker cannot be reached, or the connection broke before the confirm."""

    code = "broker_unavailable"


class SettingsError(DspexError):
    """A setting is missing or wrong. The text has one line for each."""

    code = "invalid_setting"

    @staticmethod
    def _shown(message: str) -> str:
        return visible_lines(message)


class DatabaseUnavailable(DspexError):
    """The database cannot be reached, or a table or a privilege is missing. The request itself may be fine."""

    code = "database_unavailable"
