"""The door to the models. Its hot path may be compiled, see `gateway.compiling`."""

from gateway import compiled

compiled.prefer(__path__)
