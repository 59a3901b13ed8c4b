"""Positions: how far each device's messages are dealt with, from the input log to the output log.

Owns what makes delivery durable. A repeat is dropped in ``inputs``; a position is stored in ``position``.

=================  =========================================================================================
``position``       the positions themselves, and the chained output that keeps them
``inputs``         frames as they come in: received, checked, admitted
``segments``       the results of an input frame: cut, split, and freed of what can't travel
``outputs``        results gathered into output frames, stored, and their input acknowledged
``opening``        input and output as the flow's delivery asks for them: logs, or signals
``dead_letters``   messages that a processor failed on
``janitor``        what may be deleted from the output, and which reader holds it back
``forwarding``     results on their way from a leaf's store to the cloud's
=================  =========================================================================================
"""
