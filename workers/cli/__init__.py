"""The command line, `dspex`. A command imports its modules when it runs, so that `dspex --help` is quick."""
