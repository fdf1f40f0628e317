"""Export a target as a model that transformers loads without the pipeline."""
