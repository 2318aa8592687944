"""DSPex: typed messages for LM programs that run as jobs. What producers install and what workers share.

Each name is imported when it is first asked for: whoever only sends loads no client, whoever only reads no pika.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex.aio import AsyncClient
    from dspex.client import RemoteClient
    from dspex.commands import CreateProgram, CreateSignature, ExecuteProgram, InitializeProgram
    from dspex.configuration import LM, Configuration, Fallback, LMParameters
    from dspex.envelope import Envelope, decode_command, decode_event, wrap
    from dspex.errors import DspexError, Problem
    from dspex.events import (
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
    from dspex.ids import uuid7
    from dspex.options import ExecutionOptions
    from dspex.producer import Producer
    from dspex.signature import Signature, SignatureField
    from dspex.state import State
    from dspex.status import ErrorCode, ExecutionStatus, ProgramStatus, SignatureStatus
else:
    from importlib import import_module

    _NAMES = {
        "aio": "AsyncClient",
        "client": "RemoteClient",
        "commands": "CreateProgram CreateSignature ExecuteProgram InitializeProgram",
        "configuration": "LM Configuration Fallback LMParameters",
        "envelope": "Envelope decode_command decode_event wrap",
        "errors": "DspexError Problem",
        "events": (
            "ErrorDetail ExecutionCompleted ExecutionFailed LMCall MessageRejected ProgramError ProgramReady Try Usage"
        ),
        "ids": "uuid7",
        "options": "ExecutionOptions",
        "producer": "Producer",
        "signature": "Signature SignatureField",
        "state": "State",
        "status": "ErrorCode ExecutionStatus ProgramStatus SignatureStatus",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        """PEP 562: a name of `__all__`, from its module. It is kept, so that this happens once."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "LM",
    "AsyncClient",
    "Configuration",
    "CreateProgram",
    "CreateSignature",
    "DspexError",
    "Envelope",
    "ErrorCode",
    "ErrorDetail",
    "ExecuteProgram",
    "ExecutionCompleted",
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
    "uuid7",
    "wrap",
]
