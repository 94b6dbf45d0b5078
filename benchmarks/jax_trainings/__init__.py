"""What `benchmarks/many_trainings.py` is made of: the parts that need JAX, and those that don't."""
