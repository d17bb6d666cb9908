"""Asynchronous requests: queued in PostgreSQL, run at an endpoint's spare concurrency, told of by webhook."""
