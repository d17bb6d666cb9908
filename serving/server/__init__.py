"""The HTTP server of the pre-built containers for models of one's own."""
