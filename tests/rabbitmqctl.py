"""RabbitMQ's own command line, for what a test changes in a server that runs.

It is a program of Erlang's virtual machine, which needs a second or two of CPU to begin. So it begins once, and takes
one command after the other for as long as they are for the same server.
"""

from __future__ import annotations

import atexit
import base64
import shutil
import subprocess
import tempfile
import threading
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from deploy.local_servers import RabbitMQServer, find_program

ENDED: Final = "rabbitmqctl ended with "
LOOP: Final = f"""
{{ok, _}} = application:ensure_all_started(elixir),
ok = application:load(rabbitmqctl),
Print = fun(Output, Command, Options) ->
    Formatter = case erlang:function_exported(Command, formatter, 0) of
        true -> Command:formatter();
        false -> 'Elixir.RabbitMQ.CLI.Formatters.String'
    end,
    Formatted = 'Elixir.RabbitMQ.CLI.Core.Output':format_output(Output, Formatter, Options),
    'Elixir.RabbitMQ.CLI.Core.Output':print_output(Formatted, 'Elixir.RabbitMQ.CLI.Printers.StdIO', Options),
    Output
end,
Code = fun({{error, Code}}) -> Code; ({{error, Code, _}}) -> Code; ({{'EXIT', _}} = Wrong) -> Wrong; (_) -> 0 end,
Loop = fun Loop() ->
    case io:get_line("") of
        eof -> halt();
        Line ->
            Words = [base64:decode(Word) || Word <- string:lexemes(string:trim(Line), " ")],
            Done = (catch 'Elixir.RabbitMQCtl':exec_command(Words, Print)),
            io:format("~n{ENDED}~0p~n", [Code(Done)]),
            Loop()
    end
end,
Loop().
"""


class RabbitMQCtlError(RuntimeError):
    """A command failed; the text is what it printed."""


class _CommandLine:
    """A virtual machine that has loaded it, for one server."""

    def __init__(self, server: RabbitMQServer) -> None:
        self._environment = server.environment()
        options = [
            "+B",
            "-boot",
            "start_clean",
            "-noshell",
            "-hidden",
            "-pa",
            str(_code()),
            "-eval",
            LOOP,
            "-extra",
            "rabbitmqctl",
        ]
        self._process = subprocess.Popen(
            [find_program("erl", "erlang-base"), *options, "-extra", "rabbitmqctl"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def is_for(self, server: RabbitMQServer) -> bool:
        """Whether it is for this server, and lives."""
        return self._environment == server.environment() and self._process.poll() is None

    def run(self, arguments: tuple[str, ...]) -> str:
        """Run a command; returns what it prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        node = self._environment["RABBITMQ_NODENAME"]
        words = (base64.b64encode(word.encode()).decode() for word in (arguments[0], "--node", node, *arguments[1:]))
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.startswith(ENDED):
                output = "".join(printed).removesuffix("\n")
                code = line.removeprefix(ENDED).strip()
                if code != "0":
                    raise RabbitMQCtlError(f"rabbitmqctl {' '.join(arguments)}: {code}\n{output}")
                return output
            printed.append(line)
        raise RabbitMQCtlError(f"rabbitmqctl {' '.join(arguments)}: it is gone\n{''.join(printed)}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@cache
def _code() -> Path:
    """A folder with its compiled code, which is packed into its program."""
    code = Path(tempfile.mkdtemp(prefix="dspex-rabbitmqctl-"))
    atexit.register(shutil.rmtree, code, ignore_errors=True)
    program = find_program("rabbitmqctl", RabbitMQServer.package, Path("/usr/lib/rabbitmq/bin"))
    with zipfile.ZipFile(program.resolve().parents[1] / "escript" / "rabbitmqctl") as archive:
        archive.extractall(code)
    return code


_last: list[_CommandLine] = []
_one_at_a_time = threading.Lock()


def rabbitmqctl(server: RabbitMQServer, *arguments: str) -> str:
    """Run it on a server; returns what it prints.

    Raises:
        RabbitMQCtlError: it failed.
    """
    with _one_at_a_time:
        if not _last or not _last[0].is_for(server):
            for last in _last:
                last.close()
            _last[:] = [_CommandLine(server)]
        return _last[0].run(arguments)
