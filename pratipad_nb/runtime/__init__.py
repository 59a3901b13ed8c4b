"""The runtime: runs a flow at the edge, given a `Connection`; knows neither NATS nor the server.

There are six rooms, each of which imports only from the rooms below it. `pratipad_nb.session` composes the
rooms with a server.

==============  ==============================================================================================
``sharing``     a flow in partitions: which edges there are, and which partitions this process runs
``edge``        one run of a dataflow: its life, its pipeline, changes to it, and the answers it gives
``devices``     the backward side: credit, requests, presence, and orders until a device has run them
``positions``   how far messages are dealt with: input, admission, output, dead letters, and what is deleted
``stages``      processors at work: instances, batches through them, shards, the line of a notation
``values``      the values and counts that all rooms share: batches, settings, statistics, samples, logs
==============  ==============================================================================================

``positions`` and ``stages`` don't import each other: a processor knows nothing of positions.
"""
