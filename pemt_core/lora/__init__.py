"""Source adapters to and from the layout in which PEFT stores a LoRA; PEFT itself is not needed."""
