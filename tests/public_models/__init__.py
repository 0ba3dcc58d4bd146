"""Public architectures, written from their papers as people write Flax, for the tools to meet."""
