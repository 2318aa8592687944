"""The verbs of the interface that run in a thread. Written by `make verbs`, out of `Interface`."""

from __future__ import annotations

from dspex.client.call_threads import InThreads, in_thread
from dspex.client.interface import Interface


class AsyncVerbs(InThreads):
    """See `Interface`."""

    activate_signature = in_thread(Interface.activate_signature)
    archive_program = in_thread(Interface.archive_program)
    cancel_execution = in_thread(Interface.cancel_execution)
    compare_signatures = in_thread(Interface.compare_signatures)
    count_executions = in_thread(Interface.count_executions)
    create_program = in_thread(Interface.create_program)
    create_signature = in_thread(Interface.create_signature)
    create_signature_from_module = in_thread(Interface.create_signature_from_module)
    delete_endpoint = in_thread(Interface.delete_endpoint)
    deprecate_signature = in_thread(Interface.deprecate_signature)
    destroy_program = in_thread(Interface.destroy_program)
    destroy_signature = in_thread(Interface.destroy_signature)
    disable_endpoint = in_thread(Interface.disable_endpoint)
    discard_executions = in_thread(Interface.discard_executions)
    discard_messages = in_thread(Interface.discard_messages)
    enable_endpoint = in_thread(Interface.enable_endpoint)
    get_delivery = in_thread(Interface.get_delivery)
    get_endpoint = in_thread(Interface.get_endpoint)
    get_execution = in_thread(Interface.get_execution)
    get_program = in_thread(Interface.get_program)
    get_program_statistics = in_thread(Interface.get_program_statistics)
    get_rejected_message = in_thread(Interface.get_rejected_message)
    get_signature = in_thread(Interface.get_signature)
    get_signature_schema = in_thread(Interface.get_signature_schema)
    get_stats = in_thread(Interface.get_stats)
    initialize_program = in_thread(Interface.initialize_program)
    list_dead_executions = in_thread(Interface.list_dead_executions)
    list_dead_messages = in_thread(Interface.list_dead_messages)
    list_deliveries = in_thread(Interface.list_deliveries)
    list_endpoints = in_thread(Interface.list_endpoints)
    list_executions = in_thread(Interface.list_executions)
    list_programs = in_thread(Interface.list_programs)
    list_rejected_messages = in_thread(Interface.list_rejected_messages)
    list_signatures = in_thread(Interface.list_signatures)
    output_model = in_thread(Interface.output_model)
    quick_execute = in_thread(Interface.quick_execute)
    recent_executions = in_thread(Interface.recent_executions)
    register_endpoint = in_thread(Interface.register_endpoint)
    replay_deliveries = in_thread(Interface.replay_deliveries)
    replay_executions = in_thread(Interface.replay_executions)
    replay_messages = in_thread(Interface.replay_messages)
    rotate_secret = in_thread(Interface.rotate_secret)
    signature_of = in_thread(Interface.signature_of)
    update_endpoint = in_thread(Interface.update_endpoint)
    update_program = in_thread(Interface.update_program)
    update_signature = in_thread(Interface.update_signature)
    validate_module = in_thread(Interface.validate_module)
