"""How many instances an endpoint should have: pure, without Django, without a clock.

    history = history.seen(signal, policy, at)               # remember this moment
    decision = desired(signal, policy, history, at)          # None: leave it as it is
    history = history.applied(decision, at)                  # once it was written

Fast up: what the mean over the panic window asks for is wanted at once, in bounded steps. Slow down: only to
the greatest wish of the whole delay, so any greater wish begins the delay for all smaller numbers anew.
"""

from endpoints.autoscale.decide import desired
from endpoints.autoscale.facts import Decision, Policy, Signal
from endpoints.autoscale.hearing import is_whole, listen
from endpoints.autoscale.history import History

__all__ = ["Decision", "History", "Policy", "Signal", "desired", "is_whole", "listen"]
