"""How bytes travel: the contract (`protocol`), two implementations of it (`nats`, `memory`), the layout of frames,
subjects and permissions, and TLS contexts.

Knows nothing of processors or flows; `pratipad_nb.runtime`, `device` and `cloud` are given a `Connection`.
"""
