"A training run: the loop, its optimizer, checkpoints, folders, several processes, trackers."
from .. import flow, hybrid  # noqa: F401  what a run's configuration may name is registered when these are imported
