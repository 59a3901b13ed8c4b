"""The command line ``pratipad``: what runs, watches and checks flows without a notebook.

Owns arguments, environment variables, what is printed and exit codes; all else is `pratipad_nb.session` and below. Heavy
things are imported when a command needs them, so that ``--help`` is quick and ``device`` runs where no more is
installed than a device needs.

========== ==========================================================
main       the entry point, which also works where ``typer`` is not
app        the commands, put together
faults     exit codes, errors as one message, signals
options    options that several commands have
here       the state folder: its server, and letting others in
programs   files that define devices and flows: run, and looked into
notebooks  a notebook's code cells, run without a browser
notations  notations found in files, for `check`
rates      flows' numbers as text, for `top` and `run`
========== ==========================================================

The other modules are a command each.

Exit codes: 0 done (also: ended by a signal after a clean drain, where running until then is the purpose); 1 failed; 2 wrong
usage; 130 and 143 interrupted (SIGINT, SIGTERM) before it was done.
"""
