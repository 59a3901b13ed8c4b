"""The cloud layer: consumes a flow's results and sends orders.

Owns the reader (a named position in the output), the client `Cloud`, and two common stores of results: data
frames and SQLite. Knows nothing of processors; frames alone go to the edge.
"""
