"""rice_jax: where a CNN's compute goes, which filters do nothing, and what removing them costs."""
