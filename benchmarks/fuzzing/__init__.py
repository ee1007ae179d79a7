"""What `fuzz_imaging.py` is made of: mutants, bombs, and the verdict on how they end."""
