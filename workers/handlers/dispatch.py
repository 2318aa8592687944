"""What each command does: one function for each, found by the command's type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from dspex.contract import commands as c
from dspex.contract import dead_letters as d
from dspex.contract import endpoints as e
from dspex.contract import queries as q
from dspex.errors import Denied
from workers.application.wiring import Application
from workers.handlers import dead_letters, executions, programs, signatures, webhooks
from workers.security.authorization import authorize, told_of
from workers.security.request import Received

HANDLERS: dict[str, Callable[[Application, Received[Any]], BaseModel | None]] = {
    c.CreateSignature.type: signatures.create_signature,
    c.CreateSignatureFromModule.type: signatures.create_from_module,
    c.UpdateSignature.type: signatures.update_signature,
    c.ActivateSignature.type: signatures.activate_signature,
    c.DeprecateSignature.type: signatures.deprecate_signature,
    c.DestroySignature.type: signatures.destroy_signature,
    q.GetSignature.type: signatures.get_signature,
    q.GetSignatureSchema.type: signatures.get_schema,
    q.ListSignatures.type: signatures.list_signatures,
    q.CompareSignatures.type: signatures.compare_signatures,
    q.ValidateModule.type: signatures.is_module,
    c.CreateProgram.type: programs.create_program,
    c.CreateProgramWithSignature.type: programs.create_with_signature,
    c.InitializeProgram.type: programs.initialize_program,
    c.UpdateProgram.type: programs.update_program,
    c.ArchiveProgram.type: programs.archive_program,
    c.DestroyProgram.type: programs.destroy_program,
    q.GetProgram.type: programs.get_program,
    q.ListPrograms.type: programs.list_programs,
    q.GetProgramStats.type: programs.get_stats,
    q.GetProgramStatistics.type: programs.get_statistics,
    c.ExecuteProgram.type: executions.execute_program,
    c.CancelExecution.type: executions.cancel_execution,
    q.GetExecution.type: executions.get_execution,
    q.ListExecutions.type: executions.list_executions,
    d.ReplayExecutions.type: dead_letters.replay_executions,
    d.DiscardExecutions.type: dead_letters.discard_executions,
    d.ReplayMessages.type: dead_letters.replay_messages,
    d.DiscardMessages.type: dead_letters.discard_messages,
    q.GetRejectedMessage.type: dead_letters.get_rejected_message,
    q.ListRejectedMessages.type: dead_letters.list_rejected_messages,
    e.RegisterEndpoint.type: webhooks.register_endpoint,
    e.UpdateEndpoint.type: webhooks.update_endpoint,
    e.EnableEndpoint.type: webhooks.enable_endpoint,
    e.DisableEndpoint.type: webhooks.disable_endpoint,
    e.RotateSecret.type: webhooks.rotate_secret,
    e.DeleteEndpoint.type: webhooks.delete_endpoint,
    e.ReplayDeliveries.type: webhooks.replay_deliveries,
    q.GetEndpoint.type: webhooks.get_endpoint,
    q.ListEndpoints.type: webhooks.list_endpoints,
    q.GetDelivery.type: webhooks.get_delivery,
    q.ListDeliveries.type: webhooks.list_deliveries,
}


def dispatch(app: Application, received: Received[Any]) -> BaseModel | None:
    """Carry out a command in the name of its principal; returns its answer, if it has one now.

    Raises:
        Denied: the policy does not allow it, or what it names may not be used. Either has left an audit line.
        DspexError: it cannot be done; the code says why.
    """
    authorize(received.principal, received.command)
    try:
        return HANDLERS[received.command.type](app, received)
    except Denied as denied:
        told_of(received.principal, received.command, denied)
        raise
