"""The command rice-jax: what may be given, and one line for a mistake.

A command reads its options, holds them against what is allowed, and returns what is to be done.
Only then is JAX loaded: mistakes and --help are told at once.
"""
