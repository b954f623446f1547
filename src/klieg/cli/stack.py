"""The same as `klieg dump`, under the name that Ray gives it."""

from klieg.cli.dump import add, run

__all__ = ["add", "run"]
