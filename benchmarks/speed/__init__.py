"""How long a training step takes, here and elsewhere: a comparison that a stranger can repeat.

    make bench                                   # everything, in an environment of its own
    make bench BENCH=--help                      # cases, contestants and settings
    make bench BENCH=--quick                     # does it run?  (its figures mean nothing)
    .venv-bench/bin/python -m benchmarks.speed   # the same without make, once that is set up

Every contestant is a process of its own that trains the same model from the same weights on the
same batches.  The processes take turns on the same cores: a round gives each a slice of steps, in
an order that rotates, so that whatever the machine does in one minute it does to all.  Ratios are
taken within a round; the table shows their medians.  A contestant that does not end where the
others end is named as unfair.
"""
