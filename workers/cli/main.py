"""`dspex`: the commands and their options. Each imports the module with its work when it runs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from workers.cli import gates
from workers.cli.blobs import blob
from workers.cli.cancels import cancel
from workers.cli.dead_letters import dead_letter
from workers.cli.entities import as_json, cursor, execution, limit, of_program, program, signature, strict, tenant, verb
from workers.cli.webhooks import webhook

USAGE_ERROR = 2
INTERRUPTED = 130


class _Commands(click.Group):
    """Prints our errors as lines, never as a traceback."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _quoting_visibly():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        from dspex.errors import DspexError
        from workers.cli.output import say

        try:
            with _quoting_visibly():
                return super().invoke(ctx)
        except DspexError as error:
            for line in error.message.split("\n"):
                say(f"dspex: {line}", err=True)
            sys.exit(USAGE_ERROR)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


@contextmanager
def _quoting_visibly() -> Generator[None]:
    """Make click's errors safe to print, as they quote what the user typed."""
    try:
        yield
    except click.ClickException as error:
        from dspex.text import visible

        vars(error)["message"] = visible(error.message)
        raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dspex", prog_name="dspex")
def main() -> None:
    """Run DSPy signatures and programs as jobs.

    Settings come from the environment: DSPEX_DATABASE_URL (sqlite:///dspex.db by default) and DSPEX_BROKER_URL
    (memory:// by default, amqp://… for RabbitMQ). docs/settings.md lists the others.
    """


@main.command()
@click.argument("signature")
@click.option(
    "--inputs",
    "inputs_file",
    metavar="FILE",
    help="Rows to run: .jsonl, .json, .csv, .tsv, .parquet, .xlsx, packed or not; - is standard input.",
)
@click.option("--input", "pairs", multiple=True, metavar="NAME=VALUE", help="One input of a single row; repeat it.")
@click.option(
    "--adapter",
    "adapter_type",
    help="mock, native or python_port. By default native where --model names an LM, else mock, which calls none.",
)
@click.option("--module", help="The DSPy module, such as ChainOfThought. By default Predict.")
@click.option("--model", help="The LM: provider/model such as openai/gpt-4o-mini, or an alias of DSPEX_LMS.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help='What an optimizer found: the JSON file that DSPy\'s program.save("x.json") wrote.',
)
@click.option(
    "--extra-output",
    "extra_outputs",
    multiple=True,
    metavar="NAME",
    help="Keep this output of the module beside those of the signature, such as reasoning; repeat it.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write results to this file.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="How results are written.",
)
@click.option("--unordered", is_flag=True, help="Write results as they come, instead of in the order of the rows.")
@click.option("--expect", metavar="COLUMN", help="Compare the output of this name with this column of the rows.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="INPUT=HEADER",
    help="The column of an input, if its name differs.",
)
@click.option(
    "--inputs-format",
    type=click.Choice(["jsonl", "json", "csv", "tsv", "parquet", "excel"]),
    help="The format of --inputs, if its name does not tell.",
)
@click.option("--encoding", help="The encoding of --inputs: by default its byte order mark's, else utf-8.")
@click.option("--delimiter", help="The delimiter of CSV: by default the one in its first line.")
@click.option("--sheet", help="The sheet of Excel: by default the first one.")
@click.option("--retry-failed", is_flag=True, help="Run again the lines that failed in an earlier run.")
@click.option("--run-others", is_flag=True, help="Without RabbitMQ: also run what other runs left in the database.")
@strict
@tenant
@click.option("--with-worker", is_flag=True, help="With RabbitMQ: also run the jobs here, as a worker.")
def run(**options: Any) -> None:
    """Run SIGNATURE over rows of input and print the results as JSON lines.

    SIGNATURE is the arrow form ("question -> answer, score: float"), a JSON file, package.module:Class, a deployment
    (a TOML file, see `dspex deploy`), or the id or name of a program that is there. Lines that have run before, with
    the same program and the same inputs, do not run again: after Ctrl-C, the same command goes on.

    Exit code: 0 all completed, 1 some failed or did not fit the signature, 2 wrong usage or no server, 130 Ctrl-C.
    """
    from workers.cli.run import RunOptions
    from workers.cli.run import run as run_command

    sys.exit(run_command(RunOptions(**options)))


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--name", help="The name of the program.")
@click.option("--signature", help="The arrow form, a JSON file, or package.module:Class.")
@click.option("--adapter", "adapter_type", help="mock, native or python_port.")
@click.option("--module", help="The DSPy module.")
@click.option("--model", help="The LM: provider/model, or an alias of DSPEX_LMS.")
@click.option("--state", metavar="JSON", help="The state that an optimizer found: a JSON file.")
@click.option("--check", metavar="INPUTS", help="Run the program once on these inputs, a JSON object.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--allow-breaking", is_flag=True, help="Also a signature that breaks callers of the old one.")
@strict
@tenant
@as_json
def deploy(**options: Any) -> None:
    """Make a program as FILE says: create it, or change what differs, and wait until it is ready on the workers.

    FILE is TOML or JSON; options replace what it says. docs/deploy.md has the members.

    Exit code: 0 the program is as FILE says, 1 the check failed, 2 wrong usage, refused, or no server.
    """
    from workers.cli.deploy import DeployOptions
    from workers.cli.deploy import deploy as deploy_command

    names = ("file", "check", "yes", "dry_run", "allow_breaking", "strict", "as_json", "tenant")
    own = {name: options.pop(name) for name in names}
    members = {name: value for name, value in options.items() if value is not None}
    if (model := members.pop("model", None)) is not None:
        members["lm"] = {"model": model}
    sys.exit(deploy_command(DeployOptions(members=members, **own)))


@main.command()
@click.option("--processes", type=click.IntRange(1, 256), help="Worker processes (DSPEX_PROCESSES, 1).")
@click.option("--threads", type=click.IntRange(1, 4096), help="Executions at once in each (DSPEX_THREADS, 64).")
@click.option("--lanes", metavar="LANE,...", help="Run executions of these lanes only (DSPEX_SERVE_LANES).")
@click.option("--programs", metavar="ID,...", help="Of these programs only (DSPEX_SERVE_PROGRAMS).")
@click.option("--adapters", metavar="NAME,...", help="Of programs on these adapters only (DSPEX_SERVE_ADAPTERS).")
@click.option(
    "--environments",
    metavar="NAME,...",
    help="Of programs in these environments only; - is what names none (DSPEX_SERVE_ENVIRONMENTS).",
)
@click.option("--parent", type=int, hidden=True)
def worker(parent: int | None, processes: int | None, threads: int | None, **served: str | None) -> None:
    """Run jobs from RabbitMQ until SIGTERM or Ctrl-C; then let running jobs end, and exit."""
    from workers.cli.worker import run_worker

    given = {f"serve_{name}": names for name, names in served.items()}
    sys.exit(run_worker(parent, processes=processes, threads=threads, **given))


@main.command()
@click.option("--parent", type=int, hidden=True)
def deliverer(parent: int | None) -> None:
    """Send webhooks until SIGTERM or Ctrl-C. `dspex worker` starts one itself, unless DSPEX_WEBHOOK_THREADS is 0."""
    from workers.cli.worker import run_deliverer

    sys.exit(run_deliverer(parent))


@main.command()
@click.option("--to", "revision", metavar="REVISION", help="A migration before the newest, such as 0004.")
def migrate(revision: str | None) -> None:
    """Bring the database's tables up to date. Safe while workers run, also those of the previous version."""
    from workers.cli.output import say
    from workers.cli.servers import migrate_database

    say(migrate_database(revision))


@main.command()
@click.option(
    "--to", "revision", metavar="REVISION", required=True, help="A migration, such as 0004; base: none at all."
)
@click.option("--yes", is_flag=True, help="Lose what that migration does not know; without it, this asks.")
def downgrade(revision: str, yes: bool) -> None:
    """Take the database's tables back, for an older version. Says what that loses, and asks."""
    from workers.cli.output import say
    from workers.cli.servers import downgrade_database

    def agreed(lost: list[str]) -> bool:
        say(f"This loses: {'; '.join(lost)}", err=True)
        return yes or (sys.stdin.isatty() and click.confirm("Go on?", err=True))

    say(downgrade_database(revision, agreed=agreed))


@main.command()
def declare() -> None:
    """Declare the exchanges and queues on RabbitMQ, as every worker does when it starts."""
    from workers.cli.output import say
    from workers.cli.servers import declare_topology

    say(declare_topology())


execution.add_command(cancel)
for group in (signature, program, execution, dead_letter, webhook, blob):
    main.add_command(group)
verb(
    main, "queue", "get_backlog",
    "Show how much waits and runs, since when, how fast it moves, and what holds it.",
    click.option("--by", type=click.Choice(["lane", "tenant", "program"]), default="lane", show_default=True),
    of_program, click.option("--lane", type=click.Choice(["high", "default", "bulk"])),
    click.option("--all-tenants", is_flag=True, help="Of all tenants, not of one."), limit, cursor,
)  # fmt: skip
verb(
    main, "workers", "list_workers", "List the live worker processes: what each serves, and how busy it is.",
    limit, cursor,
)  # fmt: skip
gates.add(main)
