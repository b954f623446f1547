"""What carries out the verbs of `klieg.engine`: in this process (`inline`) or in worker processes (`local`)."""
