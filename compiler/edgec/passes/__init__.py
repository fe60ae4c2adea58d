"""IRModule to IRModule, one pass per file; the order for each platform is in ``pipeline``.

Read ``pipeline`` first: it lists the phases. Passes that add functions (``attach_*``) come
first, then weights get their layout and linear layers their kernels, then fusion, scheduling and
the steps down to the virtual machine.
"""
