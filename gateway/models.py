"""The tables of the gateway's own: asynchronous requests."""

from gateway.jobs.models import AsyncRequest, Delivery, WebhookSecret

__all__ = ["AsyncRequest", "Delivery", "WebhookSecret"]
