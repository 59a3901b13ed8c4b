"""Positions: how far each device's messages are dealt with, from the input log to the output log.

Owns durable delivery. A repeat is dropped in ``gatekeeper``; a position is stored in ``chain``.

=================  =========================================================================================
``positions``      how far each device's messages are dealt with; which of its epochs are kept
``chain``          the output chain: results and the positions that they complete, stored together
``inputs``         where deliveries come from: the input log, or signals
``former_input``   the input that an earlier version has stored, moved into the log of today
``lineage``        whether the logs are still those that positions were read from
``gatekeeper``     which messages of a delivery are new, which are repeats, which are missing
``unreadable``     entries of the flow's own logs that are no frames: skipped, counted and named
``frame_names``    the writers and numbers of output frames
``malformed``      deliveries that are no frames: kept as dead letters
``segments``       the results of an input frame: cut, split, and freed of what can't travel
``rebuilding``     messages at Output that a restored state lacks, and that pass the processors again
``outputs``        results gathered into output frames, stored, and their input acknowledged
``opening``        the input and output that the flow's delivery asks for: logs, or signals
``checkpoints``    all positions and states as of one output frame, so that a start reads little
``dead_letters``   messages that a processor failed on
``letter_room``    the bound of the dead letters, which new messages wait for
``letter_shares``  each device's share in that room, and which letters are dropped beyond it
``janitor``        what may be deleted from the output, and which reader holds it back
``storage``        whether the server stores results at present, and how much has to be deleted
``forwarding``     results on their way from a leaf's store to the cloud's
=================  =========================================================================================
"""
