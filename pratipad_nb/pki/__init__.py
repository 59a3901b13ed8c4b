"""Certificates: an authority of one's own, and who has been given one.

`authority` makes the authority and signs, `certificates` knows what is in a certificate, `store` knows in which folders
they lie. Nothing here knows NATS or what an identity means: that is a string from `pratipad_nb.transport.permissions`.

Nothing is imported with this package itself: `cryptography` takes longer to import than a device takes to connect.
"""
