"""The NATS server that this package brings along: embedded in a process, or joined by a second one.

Owns the server's process, its folder, its configuration, and who is let in. What travels over it is
`pratipad_nb.transport`'s. Accounts and clusters of several servers have their place here.

============  ==============================================================================================
``embedded``  the server of this process: started, watched, restarted, ended
``joined``    the server of another process on the same folder
``process``   the server as a child process that is never left behind
``config``    the server's configuration and its list of users, as text
``users``     letting users in and out while the server runs
``state``     which server runs in a folder, and whose it is
``log_file``  the server's own log
============  ==============================================================================================
"""
