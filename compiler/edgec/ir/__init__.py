"""What everything that touches TVM's IR shares: loading TVM, and small helpers on Relax and TIR.

``load`` first, then ``params`` (how weights appear in a module).
"""
