"""The fork server: a process with a single thread, which has DSPy loaded, forks children, and reaps them.

A worker has many threads, so it cannot be forked safely; this process can. The protocol with the adapter is a JSON
object per packet over a socket, with file descriptors attached.

adapter → server    {"type": "fork"}, with the child's socket, stdout and stderr   {"type": "status", "pid": n}
                    {"type": "module", "name": "...", "allowed": ["..."]}
server → adapter    {"type": "hello", "version": n}, first
                    {"type": "forked", "pid": n}, with a pidfd                     {"type": "status", "status": n}
                    {"type": "error", "message": "..."}
                    {"type": "module", "code": {...} or null}                      {"type": "refused", "error": {...}}

The server and all children end when the adapter closes the socket or dies. The death of the server kills the children,
too (PR_SET_PDEATHSIG). When a child ends, all processes in its process group are killed.
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
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from adapters.native import by_version, setup
from adapters.own_modules import OwnModules
from adapters.port import AdapterError
from adapters.python_port import child
from adapters.python_port.frames import VERSION, Failed
from adapters.python_port.linux import die_with, limit_memory

MAX_PACKET: Final = 64 * 1024
KEPT_STATUSES: Final = 4_096


class ForkServer:
    """Forks children and records how they ended."""

    def __init__(self, control: socket.socket, options: Mapping[str, Any]) -> None:
        self._control = control
        self._options = options
        self._alive: set[int] = set()
        self._statuses: OrderedDict[int, int] = OrderedDict()

    def serve(self) -> None:
        """Answer packets until the adapter is gone."""
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
            elif packet["type"] == "module":
                self._send(_found(packet["name"], packet["allowed"]))
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
        # The child was not reaped yet, so its pid is not reused; the descriptor never will be.
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
            # Close all descriptors of the server and its preloaded modules: a child keeps its three streams and its
            # socket.
            os.closerange(3, connection)
            os.closerange(connection + 1, os.sysconf("SC_OPEN_MAX"))
            limit_memory(self._options["memory_bytes"])
            # Not closed here, so that the adapter sees the end of the process before that of the connection.
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
            # Before it is reaped, as then its pid cannot be that of another group.
            _kill_group(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            self._alive.discard(ended.si_pid)
            self._statuses[ended.si_pid] = os.waitstatus_to_exitcode(status)
            while len(self._statuses) > KEPT_STATUSES:
                self._statuses.popitem(last=False)

    def _send(self, packet: Mapping[str, Any], *descriptors: int) -> None:
        socket.send_fds(self._control, [json.dumps(packet).encode()], list(descriptors))


def _found(name: str, allowed: Sequence[str]) -> dict[str, Any]:
    """The code of a module of one's own, as it is in this Python. Imports nothing of it."""
    try:
        code = OwnModules(tuple(allowed)).find(name)
    except AdapterError as error:
        return {"type": "refused", "error": Failed.of(error).model_dump(mode="json")}
    return {"type": "module", "code": None if code is None else code.model_dump()}


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main(control: int, parent: int, options: Mapping[str, Any]) -> None:
    """Load the modules that children need, then serve.

    Args:
        control: the descriptor of the socket to the adapter.
        parent: the pid of the adapter's process.
        options: `memory_bytes`, `max_frame_bytes`, `preload`, `lm_proxy`.
    """
    die_with(parent)
    os.set_inheritable(control, False)
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # All processes of a stopped service get these signals. The worker then lets runs end, which need this server.
        # Not SIG_IGN, as programs that a child starts would inherit it.
        signal.signal(sent, lambda *_: None)
    setup.prepare_dspy()
    by_version.preload(options["lm_proxy"])
    for module in (*by_version.LATE_IMPORTS, *options["preload"]):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # otherwise the first collection in a child writes to every shared page
    with socket.socket(fileno=control) as connection:
        server = ForkServer(connection, {**options, "pid": os.getpid()})
        try:
            server.serve()
        finally:
            server.end()
