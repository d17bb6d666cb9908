"""The parts of the gateway benchmark: what is measured, what measures it, and how the numbers are told."""
