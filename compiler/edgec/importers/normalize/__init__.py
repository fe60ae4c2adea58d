"""From a translated function to the form that the passes expect, one step per file.

``steps`` lists them in order. Every step is a function from IRModule to IRModule that goes through
the bindings of ``main`` once, with the help of ``straight``.
"""
