"""Stages: batches in, batches out, in order, as fast as their processors allow.

Owns the calls of processors and the order of their results. Where a processor's methods run is for
`pratipad_nb.calls`. Knows neither logs nor positions nor devices.

=============  ==============================================================================================
``runner``     one instance of a processor: set-up, calls, timers, state, tear-down
``member``     one processor of a stage: its instances, and the messages and dead letters of its rows
``stage``      one processor, or several in braces, between two queues
``tracks``     several instances at work on one batch, whose results come together in its order
``shards``     instances of one processor, each for devices of its own, which never wait for each other
``states``     the state of one instance, encoded, and its division by keys
``moving``     the state of a processor on its way to other instances
``gathering``  rows of several batches, put together for `process_batch`
``line``       all stages of a notation, and the exchange of instances
=============  ==============================================================================================
"""
