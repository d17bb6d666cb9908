"""The parts of the endurance benchmark: one module for each promise, and the ground that they stand on."""
