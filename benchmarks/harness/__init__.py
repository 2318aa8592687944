"""What every scenario needs: servers, processes, CPU accounting, statistics, tables and a plot."""
