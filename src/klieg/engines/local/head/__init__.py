"""The control plane: the one process that places, starts, watches and ends workers. No call passes through it."""
