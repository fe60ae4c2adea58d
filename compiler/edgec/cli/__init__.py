"""The command line: arguments and printing only; logic lives below.

Read in this order: ``main`` (the entry, errors to exit codes), ``lazy`` (the group that imports a
command when it is called), ``options`` (shared by several commands), ``output`` and ``tables``
(what goes to stdout and to stderr), ``reporter`` (a build's progress), then ``commands``, one
file each.
"""
