"""DSPex: typed messages for LM programs that run as jobs. What producers install and what workers share."""

from typing import TYPE_CHECKING

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
from dspex.signature import Signature, SignatureField
from dspex.state import State
from dspex.status import ErrorCode, ExecutionStatus, ProgramStatus, SignatureStatus

if TYPE_CHECKING:
    from dspex.producer import Producer
else:

    def __getattr__(name: str) -> object:
        """`Producer`, imported at first use: whoever only reads messages does not load pika."""
        if name == "Producer":
            from dspex.producer import Producer

            return Producer
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LM",
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
