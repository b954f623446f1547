"""klieg, Ray and a bare loop, measured in one run on one machine: `python -m benchmarks`.

    __main__     the command: rounds in turn, one process for each runtime and round
    rows         what is measured, and what klieg must reach
    contestant   one runtime in one round: starts it, runs the rows, stops it
    workloads    the work of each row, written once for klieg and Ray
    bare         what the operating system and pickle alone allow
    memory       private memory of a process and all that it started
    report       the table and the JSON

This is no test: it has no thresholds, and one run of it is no figure.
"""
