"""The pure train step, evaluation, the vectorised pack trainer and its checkpoints."""
