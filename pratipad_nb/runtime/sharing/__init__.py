"""Sharing: a flow in partitions, which several edges run.

Owns which edge runs which partition; each partition is run by an `Edge` of its own.

===============  ===========================================================================================
``membership``   which edges there are, and the rule that divides partitions among them
``partitioned``  the partitions that this process runs, as one flow
``counts``       the counts of the partitions here, and of all edges
``merging``      the counters of several partitions as the counters of one flow
===============  ===========================================================================================
"""
