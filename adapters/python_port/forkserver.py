"""The server of the children: one process with one thread that has DSPy loaded, forks, and reaps.

A worker has many threads, and a process with threads cannot be forked safely; this one can. It speaks with the adapter
over a socket of packets: a JSON object each, with descriptors beside it.

adapter → server    {"type": "fork"}, with the child's socket, stdout and stderr   {"type": "status", "pid": n}
server → adapter    {"type": "hello", "version": n}, first
                    {"type": "forked", "pid": n}, with a pidfd                     {"type": "status", "status": n}
                    {"type": "error", "message": "..."}

It ends, and every child with it, when the adapter closes the socket, also by dying. Its own death kills the children
(PR_SET_PDEATHSIG). When a child ends, what it started in its process group is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from dspy.clients import model_metadata

from adapters.native import setup
from adapters.python_port import child
from adapters.python_port.frames import VERSION
from adapters.python_port.linux import die_with, limit_memory

MAX_PACKET: Final = 64 * 1024
KEPT_STATUSES: Final = 4_096

LATE_IMPORTS: Final = ("dspy.clients.execution", "dspy.clients.engines.streaming", "difflib")
"""What DSPy would import with the first call. This and the prices are 45 ms and some MB that each child is spared."""


class ForkServer:
    """Forks children and keeps how they ended."""

    def __init__(self, control: socket.socket, options: Mapping[str, Any]) -> None:
        self._control = control
        self._options = options
        self._alive: set[int] = set()
        self._statuses: OrderedDict[int, int] = OrderedDict()

    def serve(self) -> None:
        """Answer until the adapter is gone."""
        wake, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        self._send({"type": "hello", "version": VERSION})
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake:
                    os.read(wake, 4_096)
                    self._reap()
                elif not self._answer():
                    return

    def end(self) -> None:
        """Kill every child, and wait until they are gone."""
        for pid in self._alive:
            _kill_group(pid)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()

    def _answer(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, 3, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        packet = json.loads(data)
        try:
            if packet["type"] == "fork":
                self._fork(descriptors)
            else:
                self._reap()
                self._send({"type": "status", "status": self._statuses.pop(packet["pid"], None)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"type": "error", "message": str(error)})
            return
        if pid == 0:
            self._become_child(*descriptors)
        self._alive.add(pid)
        # Not reaped before this: the number still means this child, as the descriptor always will.
        pidfd = os.pidfd_open(pid)
        self._send({"type": "forked", "pid": pid}, pidfd)
        os.close(pidfd)

    def _become_child(self, connection: int, stdout: int, stderr: int) -> NoReturn:
        code = os.EX_SOFTWARE
        try:
            die_with(self._options["pid"])
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            # All that the server has open, and what it preloaded: a program gets its three streams and its socket.
            os.closerange(3, connection)
            os.closerange(connection + 1, os.sysconf("SC_OPEN_MAX"))
            limit_memory(self._options["memory_bytes"])
            # Not closed here: the end of the process is to be seen before that of the connection.
            channel = socket.socket(fileno=connection)
            limits = (self._options[name] for name in ("memory_bytes", "max_frame_bytes", "lm_proxy"))
            code = child.main(channel, *limits)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001  whatever it is, it must not go on as a second server
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # Before it is reaped, its number cannot be that of another group.
            _kill_group(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            self._alive.discard(ended.si_pid)
            self._statuses[ended.si_pid] = os.waitstatus_to_exitcode(status)
            while len(self._statuses) > KEPT_STATUSES:
                self._statuses.popitem(last=False)

    def _send(self, packet: Mapping[str, Any], *descriptors: int) -> None:
        socket.send_fds(self._control, [json.dumps(packet).encode()], list(descriptors))


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main(control: int, parent: int, options: Mapping[str, Any]) -> None:
    """Load what children need, then serve.

    Args:
        control: the descriptor of the socket to the adapter.
        parent: the process of the adapter.
        options: `memory_bytes`, `max_frame_bytes`, `preload`, `lm_proxy`.
    """
    die_with(parent)
    os.set_inheritable(control, False)
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Sent to all processes of a service that is stopped: the worker then lets runs end, and they need this one.
        # Not SIG_IGN, which programs that a child starts would inherit.
        signal.signal(sent, lambda *_: None)
    setup.prepare_dspy()
    model_metadata.source_info()  # reads the list of prices
    for module in (*LATE_IMPORTS, *options["preload"]):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the first collection in a child writes to every page that it shares
    with socket.socket(fileno=control) as connection:
        server = ForkServer(connection, {**options, "pid": os.getpid()})
        try:
            server.serve()
        finally:
            server.end()
