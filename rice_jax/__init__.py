"""rice_jax: where a CNN's compute goes, which filters do nothing, and what removing them costs."""

from rice_jax import launch

launch.begin_again()
