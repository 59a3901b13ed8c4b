"""Stages: batches in, batches out, in order, as fast as their processors allow.

Owns what processors are called for and the order of results. Where their methods run is for `pratipad_nb.calls`. Knows
neither logs nor positions nor devices.

=============  ==============================================================================================
``runner``     one instance of a processor: set-up, calls, timers, state, tear-down
``stage``      one processor, or several in braces, between two queues
``shards``     instances of one processor, each for keys of its own
``gathering``  rows of several batches, put together for `process_batch`
``line``       all stages of a notation, and the exchange of instances
=============  ==============================================================================================
"""
