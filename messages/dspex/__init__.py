"""DSPex: typed messages for LM programs that run as jobs. What producers install and what workers share.

Each name is imported at its first use. A process that only sends loads no client; one that only reads loads no pika.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex.aio import AsyncClient
    from dspex.amqp.publisher import AmqpPublisher
    from dspex.client.remote import RemoteClient
    from dspex.contract.callback import Callback
    from dspex.contract.commands import CreateProgram, CreateSignature, ExecuteProgram, InitializeProgram
    from dspex.contract.configuration import LM, Configuration, Fallback, LMParameters
    from dspex.contract.envelope import Envelope, decode_command, decode_event, wrap
    from dspex.contract.events import (
        ErrorDetail,
        ExecutionCompleted,
        ExecutionFailed,
        LMCall,
        MessageRejected,
        ProgramError,
        ProgramReady,
        Try,
        Usage,
    )
    from dspex.contract.options import ExecutionOptions
    from dspex.contract.results import ExecutionError
    from dspex.contract.saved_state import state_of
    from dspex.contract.state import State
    from dspex.contract.status import ErrorCode, ExecutionStatus, ProgramStatus, SignatureStatus
    from dspex.errors import DspexError, Problem
    from dspex.ids import uuid7
    from dspex.producer import Producer
    from dspex.signatures.field import SignatureField
    from dspex.signatures.signature import Signature
else:
    from importlib import import_module

    _NAMES = {
        "aio": "AsyncClient",
        "amqp.publisher": "AmqpPublisher",
        "client.remote": "RemoteClient",
        "contract.callback": "Callback",
        "contract.commands": "CreateProgram CreateSignature ExecuteProgram InitializeProgram",
        "contract.configuration": "LM Configuration Fallback LMParameters",
        "contract.envelope": "Envelope decode_command decode_event wrap",
        "errors": "DspexError Problem",
        "contract.events": (
            "ErrorDetail ExecutionCompleted ExecutionFailed LMCall MessageRejected ProgramError ProgramReady Try Usage"
        ),
        "ids": "uuid7",
        "contract.options": "ExecutionOptions",
        "contract.results": "ExecutionError",
        "producer": "Producer",
        "signatures.field": "SignatureField",
        "signatures.signature": "Signature",
        "contract.saved_state": "state_of",
        "contract.state": "State",
        "contract.status": "ErrorCode ExecutionStatus ProgramStatus SignatureStatus",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        """PEP 562: a name of `__all__`, from its module. The value is kept, so this happens once per name."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "LM",
    "AmqpPublisher",
    "AsyncClient",
    "Callback",
    "Configuration",
    "CreateProgram",
    "CreateSignature",
    "DspexError",
    "Envelope",
    "ErrorCode",
    "ErrorDetail",
    "ExecuteProgram",
    "ExecutionCompleted",
    "ExecutionError",
    "ExecutionFailed",
    "ExecutionOptions",
    "ExecutionStatus",
    "Fallback",
    "InitializeProgram",
    "LMCall",
    "LMParameters",
    "MessageRejected",
    "Problem",
    "Producer",
    "ProgramError",
    "ProgramReady",
    "ProgramStatus",
    "RemoteClient",
    "Signature",
    "SignatureField",
    "SignatureStatus",
    "State",
    "Try",
    "Usage",
    "decode_command",
    "decode_event",
    "state_of",
    "uuid7",
    "wrap",
]
