"""The edge: one run of a dataflow, or of one partition of it.

Owns the composition of a run from the rooms below, and all that happens to the run as a whole.

==============  ============================================================================================
``edge``        the life of a run: open, run, drain, close
``preflight``   what is refused before a run is opened
``pipeline``    input, stages and output, with bounded queues between them
``changes``     another dataflow in the place of the one that runs
``swap``        processors exchanged in their places, and the receipt of a change
``upkeep``      when the janitor works, and when checkpoints are made
``settling``    whether all that was accepted is at Output
``failures``    malformed frames put aside, and dead letters retried
``replaying``   recorded inputs put through once more
``control``     what handles in other processes ask
``report``      the counters of a run as one snapshot
==============  ============================================================================================
"""
