"""The NATS server that this package brings along: embedded in a process, or joined by a second process.

Owns the server's process, folder, configuration, accounts, and renewed certificates. The messages that
travel over the server belong to `pratipad_nb.transport`. Clusters of several servers have their place here.

============  ==============================================================================================
``embedded``  the server of this process: started, watched, restarted, ended
``joined``    the server of another process on the same folder
``process``   the server as a child process that is never left behind
``config``    the server's configuration, as text
``register``  which parties are let in, what is known of their flows and tenants; and its file
``accounts``  the accounts that follow from a register
``admission`` letting parties in and out while the server runs
``readers``   what a reader needs at the server, and may not make
``owner``     the server's owner, as a client of its own server
``crowds``    a party with very many connections loses the newest of them
``usage``     how many connections accounts have
``leaves``    ending the links of leaves that are let in no more
``renewal``   renewing the certificates that a program shows, and warnings of those that end
``carrying``  carrying over what a server of version 0.1 has
``state``     which server runs in a folder, and its owner
``log_file``  the server's own log
``disk``      the disk of the server's logs: whether there is room, and when that calls for a restart
============  ==============================================================================================
"""
