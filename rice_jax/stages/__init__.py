"""The main job: its four stages, each from the run's folder to the run's folder."""

from rice_jax.stages.job import Job
from rice_jax.stages.main_job import STAGES, run_stages

__all__ = ["STAGES", "Job", "run_stages"]
