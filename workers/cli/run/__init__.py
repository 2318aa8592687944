"""`dspex run`: a signature over rows of input, the whole way: create, initialize, execute, by messages and actors.

Every id is derived from content, so the same command run again asks for the same executions: those that have ended
are read, not run.
"""

from workers.cli.run.command import run
from workers.cli.run.options import RunOptions, load_signature

__all__ = ["RunOptions", "load_signature", "run"]
