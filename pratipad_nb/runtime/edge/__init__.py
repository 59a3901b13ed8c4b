"""The edge: one run of a dataflow, or of one partition of it.

Owns the composition of a run from the rooms below, and every event that concerns the run as a whole.

==============  ============================================================================================
``edge``        the life of a run: open, run, drain, close
``running``     the contract of a run, which `Flow` uses
``parts``       the composition: which part of a run is made of which others
``agreement``   the settings that all edges of a flow have the same, and the refusals of others
``forgetting``  the stored states of processors, deleted
``status``      where in its life a run is, and why it failed
``shape``       the current line of processors, and the pipeline through it
``pipeline``    input, stages and output, with bounded queues between them
``timers``      the periodic methods of processors
``controls``    pause, resume, drain, and injecting messages that don't come from the input
``changes``     replaces the dataflow of a run: in place, or by draining
``swap``        processors exchanged in their places, and the receipt of a change
``upkeep``      when the janitor works, and when checkpoints are made
``settling``    whether all accepted messages are at Output
``retries``     dead letters put through once more
``replaying``   recorded inputs put through once more
``answers``     answers to requests of other processes
``control``     the requests of handles in other processes
``report``      the counters of a run as one snapshot
``bugs``        exceptions of callbacks, which end the run
==============  ============================================================================================
"""
