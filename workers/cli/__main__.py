"""`python -m workers.cli`: the same as `dspex`."""

from workers.cli.start import main

main()
