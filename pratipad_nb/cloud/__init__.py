"""The cloud layer: who consumes a flow's results and sends orders.

Owns the reader (a named position in the output), the client `Cloud`, and what results are commonly put into: data
frames and SQLite. Knows nothing of processors; the edge is spoken to by frames alone.
"""
