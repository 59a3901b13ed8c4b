"""What runs a flow at the edge: stages, the forward and the backward pipeline, positions, credit, dead letters, metrics.

Is given a `Connection` and knows neither NATS nor the server; `pratipad_nb.session` composes it with those.
"""
