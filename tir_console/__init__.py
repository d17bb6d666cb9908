"""The composition root. Empty on purpose: the launcher in `up` imports it and must stay small."""
