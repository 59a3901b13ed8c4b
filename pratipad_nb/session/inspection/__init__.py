"""Inspection: looking at a flow without being part of it.

Owns no processor and no message of a running flow; each module reads them, or runs processors of its own.

===============  ===========================================================================================
``step``         one processor of a running flow, and the trace of one message
``tape``         inputs kept as they came in, to be replayed
``shadow``       the outputs that would differ if other processors ran
``preview``      the results of each processor for a few payloads, without a flow
``trial``        payloads put through a line of processors, for ``shadow`` and ``preview``
``source_text``  the source text of processors
===============  ===========================================================================================
"""
