"""`python -m workers.cli`: the same as `dspex`."""

from workers.cli.main import main

main()
