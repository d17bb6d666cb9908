"""An endpoint's own scaling policy, as the pure one of `endpoints.autoscale` has it."""

from datetime import datetime, timedelta

from endpoints.autoscale import Policy
from endpoints.models import Endpoint


def policy_of(endpoint: Endpoint, at: datetime) -> Policy:
    """Until its time an emergency's number is the minimum."""
    return Policy(
        min=max(endpoint.min_instances, endpoint.held(at)),
        max=endpoint.max_instances,
        target=endpoint.target_concurrency,
        threshold=endpoint.scale_up_threshold,
        delay=timedelta(seconds=endpoint.scale_down_delay),
        spare=endpoint.warm_spare,
    )
