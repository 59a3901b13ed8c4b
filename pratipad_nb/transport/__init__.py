"""How bytes travel between devices, edges and the cloud.

Owns the contract of a transport (`protocol`), its two implementations (`nats`, `memory`), the layout of
frames and subjects, the parties and their rights, and TLS contexts. Knows nothing of processors or flows;
`pratipad_nb.runtime`, `device` and `cloud` are given a `Connection`.
"""
