"""One training loop for pretraining, stage 1 and stage 2, on accelerate. Interrupted runs resume."""
