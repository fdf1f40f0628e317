"""Several models of stage 2 on one backbone in one pass: each row has the prompt, gates and adapters of its model."""
