"""Inspection: what looks at a flow without being part of it.

===============  ===========================================================================================
``step``         one processor of a running flow, and the trace of one message
``tape``         inputs kept as they came in, to be replayed
``shadow``       what would come out otherwise if other processors ran
``preview``      what each processor makes of a few payloads, without a flow
``trial``        payloads put through a line of processors, for ``shadow`` and ``preview``
``source_text``  the source text of processors
===============  ===========================================================================================
"""
