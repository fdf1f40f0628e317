"""A small T5 pretrained from scratch, for machines without checkpoints."""
