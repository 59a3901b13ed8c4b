"""The NATS server that this package brings along: embedded in a process, or joined by a second process.

Owns the server's process, folder, configuration and users. The messages that travel over the server belong to
`pratipad_nb.transport`. Accounts and clusters of several servers have their place here.

============  ==============================================================================================
``embedded``  the server of this process: started, watched, restarted, ended
``joined``    the server of another process on the same folder
``process``   the server as a child process that is never left behind
``config``    the server's configuration and its list of users, as text
``users``     letting users in and out while the server runs
``state``     which server runs in a folder, and its owner
``log_file``  the server's own log
``disk``      the disk of the server's logs: whether there is room, and when that calls for a restart
============  ==============================================================================================
"""
