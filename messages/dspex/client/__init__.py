"""The client: the code interface, what its verbs give back, and its implementation over the broker.

Each name is imported at its first use, so a client in the process of the workers loads no pika.

| to learn | open |
|---|---|
| which verbs there are, and over what they run | `interface.py`, `arguments.py`, `port.py`, `remote.py`; asyncio: `async_verbs.py`, `call_threads.py` |
| the verbs of executions, and how one waits | `execution_verbs.py`, `handles.py`, `completion.py`, `pending.py`, `poller.py`, `wakeups.py`, `deadline.py` |
| what a program is made of, and found by | `subject.py`, `subject_verbs.py`, `classes.py`, `losses.py`, `program_lookup.py`, `signature_cache.py` |
| deployments | `deployment_file.py`, `deployment_verbs.py` |
| external executions, blobs, webhooks | `external_verbs.py`, `blob_verbs.py`, `webhook_verbs.py` |
"""  # noqa: E501  a table

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex.client.completion import as_completed
    from dspex.client.handles import Handle
    from dspex.client.interface import Interface
    from dspex.client.remote import RemoteClient
else:
    from importlib import import_module

    _MODULES = {"Handle": "handles", "Interface": "interface", "RemoteClient": "remote", "as_completed": "completion"}

    def __getattr__(name: str) -> object:
        """PEP 562: a name of `__all__`, from its module. The value is kept, so this happens once per name."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


__all__ = ["Handle", "Interface", "RemoteClient", "as_completed"]
