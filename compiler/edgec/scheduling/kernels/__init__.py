"""Hand-written TIR, one file per pattern, built from parameters (shapes, layout, vector width)."""
