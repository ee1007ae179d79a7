"""Files → Scan → model input, in NumPy; no torch."""
