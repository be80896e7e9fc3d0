"A training run: the loop, its optimizer, checkpoints, folders, several processes, trackers."
