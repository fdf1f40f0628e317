"""A small model pretrained from scratch, for machines without checkpoints."""
