"""Images of containers as their registries have them. Knows no Django and no engine."""
