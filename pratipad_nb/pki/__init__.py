"""Certificates: an authority in a folder, and the certificates that it has signed.

Knows neither NATS nor the meaning of an identity, which is a string from `pratipad_nb.transport.parties`.

================  ==========================================================================================
``authority``     the authority: made once in a folder, signs certificates and renews them
``signers``       the authority's own pairs: one, and two while the authority is changed
``requests``      a holder's request for a new certificate, its answer, and what the holder checks of it
``certificates``  the contents of a certificate: written, signed, read back from files
``store``         the folders of the certificates of one state folder
``invitation``    the folder that is carried to a party's machine
================  ==========================================================================================

Nothing is imported with this package itself: `cryptography` takes longer to import than a device takes to
connect.
"""
