"""The stages of a build, one module each.

A stage is a module with ``run(context: StageContext) -> None`` that fills ``context.out`` and
nothing else. What it makes may depend on ``context.inputs``, ``context.parents`` and its own
code only: the digest of these names the result in the store. Stages don't import each other;
what passes between them is a directory. They run in a worker process, see ``edgec.pipeline``.
"""
