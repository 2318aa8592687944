"""The programs of a help desk: what an ML engineer has before there is any DSPex."""
