"""Models that aren't decoders, from other frameworks: one Relax function and its weights.

Read ``imported`` first (what comes out), then ``find`` (which importer a source goes to). An
importer opens a source of its kind (``hf_encoder``, ``torch_sources``, ``onnx_source``), refuses
operators it can't convert (``unsupported``), and translates the rest with every weight as a constant
(``torch_export``, ``onnx_graph``). ``normalize`` then gives the function the form that the
passes of every target expect, whatever it came from.
"""
