"""Runs stages once: digests, the store, worker processes.

Read in this order: ``stage`` (what is declared about a stage, and its digest; ``sources`` and
``distributions`` digest the code that it runs, ``filedigests`` big input files), ``root`` and
``store`` (where results are kept; ``locks``, ``maintenance``), ``executor`` (which stages run
when; ``build`` makes one of them), ``process`` and ``worker`` (the two ends of a child process;
``channel``), ``events`` (what a build reports), ``history`` and ``why`` (what changed since the
last build; ``diagnose`` for all stages of a build). These know nothing of models; ``plan`` (from a
recipe to stages), ``preview`` (sizes in advance) and ``run`` (a whole build) do.
"""
