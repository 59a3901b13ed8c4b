"""The command line: its room, kept for commands that run, watch and check flows without a notebook.

Owns argument parsing and what is printed; all else is `pratipad_nb.session`. There is no command yet.
"""
