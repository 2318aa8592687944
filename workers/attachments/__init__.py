"""Images, audio and files of executions that are named by an address or a blob: brought here before the run."""
