"""The harness of all scenarios: servers, processes, CPU accounting, statistics, tables and a plot."""
