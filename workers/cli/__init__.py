"""The command line, `dspex`. What a command needs is imported when it runs: `dspex --help` stays quick."""
