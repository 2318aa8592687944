"""`dspex run`: runs a signature over rows of input, with the same messages and actors as any other client.

Every id is derived from content, so the same command again refers to the same executions. Those that have ended are
read, and not run again.
"""

from workers.cli.run.command import run
from workers.cli.run.options import RunOptions

__all__ = ["RunOptions", "run"]
