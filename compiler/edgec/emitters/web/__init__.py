"""TVM's runtime for browsers: found a compiler for, built once, and linked with a model's code."""
