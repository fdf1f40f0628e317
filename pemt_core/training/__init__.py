"""One training loop for pretraining, stage 1 and stage 2, on accelerate; it resumes where it was killed."""
