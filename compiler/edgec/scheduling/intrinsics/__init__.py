"""Instructions on matrix fragments, as TVM's tensorization takes them: one file per platform.

Each file makes a :class:`edgec.scheduling.intrinsics.fragments.MatrixUnits`. Only what a target
needs is registered: TVM's own collection of them takes half a minute to load.
"""
