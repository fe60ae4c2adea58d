"""The command line: arguments and printing only; logic lives below.

Read in this order: ``main`` (the entry, errors to exit codes), ``lazy`` (the group that imports a
command when it is called), ``settings`` and ``options`` (shared by several commands), ``plans``
(from words to build plans), ``output`` and ``describe`` (what is printed, and where), ``board``,
``reporter`` and ``live`` (a build's progress), then ``commands``, one file each.
"""
