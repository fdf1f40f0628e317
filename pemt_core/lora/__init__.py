"""Read and write source adapters in the layout in which PEFT stores a LoRA; PEFT itself is not needed."""
