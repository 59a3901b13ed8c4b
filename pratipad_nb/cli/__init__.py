"""The command line ``pratipad``: runs, watches and checks flows without a notebook.

Owns arguments, environment variables, output and exit codes; all else belongs to `pratipad_nb.session` and
the rooms below it. Heavy modules are imported when a command needs them, so that ``--help`` is quick and
``device`` runs where no more is installed than a device needs.

===============  ===========================================================================================
``main``         the entry point, which also works where ``typer`` is not installed
``app``          the commands, put together
``exits``        exit codes, errors as one message, signals
``options``      options that several commands have
``local_state``  the state folder: its server, and letting others in
``leaf``         the meaning of ``server --leaf-of``
``programs``     files that define devices and flows: run, and searched for both
``notebooks``    a notebook's code cells, run without a browser
``notations``    notations found in files, for ``check``
``rate_rows``    flows' numbers as text, for ``top`` and ``run``
``rules``        a user's rule that answers messages, for ``cloud``
===============  ===========================================================================================

Every other module is a command: ``certs``, ``check``, ``cloud``, ``device``, ``run``, ``server``, ``top``.

Exit codes: 0 done (also: ended by a signal after a clean drain, if the command runs until a signal); 1
failed; 2 wrong usage; 3 a reader whose name a newer reader has taken over; 130 and 143 interrupted (SIGINT,
SIGTERM) before the command was done.
"""
