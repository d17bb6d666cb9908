"""What was measured: traffic counted by gateways, samples of instances, and their log lines."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import ApiKey
from endpoints.models import Endpoint, Instance, Revision


class Traffic(models.Model):
    """One gateway's running totals of an endpoint's revision in a minute; replaced by its own source only.

    Histograms are slices (see monitoring.histogram): `*_first` is the index of the first used bucket.
    Sums and maxima are exact, in microseconds.
    """

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="traffic")
    revision = models.ForeignKey(Revision, models.CASCADE, related_name="+")
    minute = models.DateTimeField()
    source = models.CharField(max_length=64)
    requests = models.PositiveIntegerField(default=0)
    succeeded = models.PositiveIntegerField(default=0)  # 2xx
    client_errors = models.PositiveIntegerField(default=0)  # 4xx but 499
    server_errors = models.PositiveIntegerField(default=0)  # 5xx and streams that broke
    aborted = models.PositiveIntegerField(default=0)  # 499: the client left
    latency_first = models.PositiveSmallIntegerField(default=0)
    latency_buckets = ArrayField(models.PositiveIntegerField(), default=list)
    latency_sum_us = models.BigIntegerField(default=0)
    latency_max_us = models.BigIntegerField(default=0)
    ttft_first = models.PositiveSmallIntegerField(default=0)
    ttft_buckets = ArrayField(models.PositiveIntegerField(), default=list)
    ttft_sum_us = models.BigIntegerField(default=0)
    ttft_max_us = models.BigIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    estimated_tokens = models.BigIntegerField(default=0)  # part of the above that no engine reported
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "revision", "minute", "source"], name="traffic_once")
        ]
        indexes = [models.Index(fields=["minute"])]

    def __str__(self) -> str:
        return f"{self.endpoint_id} {self.minute:%F %R}"


class StatusClass(models.TextChoices):
    SUCCEEDED = "2xx", "Succeeded"
    CLIENT_ERROR = "4xx", "Client error"
    ABORTED = "499", "Client left"
    SERVER_ERROR = "5xx", "Server error"


class KeyTraffic(models.Model):
    """The same by key and status class in a quarter hour, without histograms: billing's evidence."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="key_traffic")
    revision = models.ForeignKey(Revision, models.CASCADE, related_name="+")
    key = models.ForeignKey(ApiKey, models.PROTECT, null=True, related_name="traffic")
    status_class = models.CharField(max_length=3, choices=StatusClass.choices)
    quarter = models.DateTimeField()
    source = models.CharField(max_length=64)
    requests = models.PositiveIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    estimated_tokens = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "revision", "key", "status_class", "quarter", "source"],
                name="key_traffic_once",
                nulls_distinct=False,
            )
        ]
        indexes = [models.Index(fields=["quarter"])]

    def __str__(self) -> str:
        return f"{self.endpoint_id} {self.key_id} {self.quarter:%F %R}"


class Sample(models.Model):
    """What one instance used in a slot of 15 seconds. Null means not measured here, which is not zero."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="samples")
    instance = models.ForeignKey(Instance, models.CASCADE, related_name="samples")
    at = models.DateTimeField()  # the slot's start
    cpu_millis = models.PositiveIntegerField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    gpu_percent = models.FloatField(null=True)
    gpu_memory_bytes = models.BigIntegerField(null=True)
    disk_bytes = models.BigIntegerField(null=True)
    network_rx_bytes = models.BigIntegerField(null=True)
    network_tx_bytes = models.BigIntegerField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["instance", "at"], name="sample_once")]
        indexes = [models.Index(fields=["endpoint", "at"])]

    def __str__(self) -> str:
        return f"{self.instance_id} {self.at:%F %T}"


class LogLine(models.Model):
    """One line of an instance's log, numbered without gaps per instance; `gap` marks lines lost before it."""

    instance = models.ForeignKey(Instance, models.CASCADE, related_name="log_lines")
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="log_lines")
    sequence = models.PositiveBigIntegerField()
    offset = models.PositiveBigIntegerField()  # where the runtime's log goes on after it
    at = models.DateTimeField()
    stream = models.CharField(max_length=6)
    text = models.TextField()
    gap = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["instance", "sequence"], name="log_line_once")]
        indexes = [models.Index(fields=["endpoint", "id"]), models.Index(fields=["at"])]

    def __str__(self) -> str:
        return self.text[:80]


class RequestRecord(models.Model):
    """One remembered request: its passport. Which are remembered is in gateway.passport.

    `request_id` is the one the caller chose or was given, not unique. Times in microseconds; null where the
    request did not come so far. `code` is that of the gateway's own refusal, "" where the engine answered.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    request_id = models.CharField(max_length=128)
    at = models.DateTimeField()  # its end
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="request_records")
    revision = models.ForeignKey(Revision, models.CASCADE, null=True, related_name="+")
    key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, related_name="+")
    instance = models.CharField(max_length=128, blank=True)  # its name; the row may be gone before this one
    method = models.CharField(max_length=16)
    path = models.CharField(max_length=300)
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=64, blank=True)
    stream = models.BooleanField(default=False)
    cold_start = models.BooleanField(default=False)
    slow = models.BooleanField(default=False)
    sample = models.BooleanField(default=False)
    queue_us = models.BigIntegerField(default=0)
    connect_us = models.BigIntegerField(default=0)
    first_byte_us = models.BigIntegerField(null=True)
    ttft_us = models.BigIntegerField(null=True)
    total_us = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    estimated = models.BooleanField(default=False)
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)
    request_body = models.TextField(blank=True)  # redacted, and only where the endpoint opted in
    answer_body = models.TextField(blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["endpoint", "-at", "-id"]),
            models.Index(fields=["endpoint", "request_id"]),
            models.Index(fields=["at"]),
        ]

    def __str__(self) -> str:
        return self.request_id

    @property
    def short_id(self) -> str:
        """Its ends: ids that a gateway gave differ in the last places only."""
        whole = self.request_id
        return whole if len(whole) <= 24 else f"{whole[:8]}…{whole[-12:]}"

    @property
    def queue_ms(self) -> float:
        return self.queue_us / 1000

    @property
    def connect_ms(self) -> float:
        return self.connect_us / 1000

    @property
    def first_byte_ms(self) -> float | None:
        return None if self.first_byte_us is None else self.first_byte_us / 1000

    @property
    def ttft_ms(self) -> float | None:
        return None if self.ttft_us is None else self.ttft_us / 1000

    @property
    def total_ms(self) -> float:
        return self.total_us / 1000

    @property
    def cost_basis(self) -> str:
        """Which price applies to it, as its revision was deployed (a BillingModel); "" once that is gone."""
        return self.revision.wish.scaling.billing_model if self.revision else ""


class BodySampling(models.Model):
    """An endpoint's wish that bodies of a sample of its requests be kept, redacted. Without a row none are."""

    endpoint = models.OneToOneField(Endpoint, models.CASCADE, related_name="body_sampling")
    one_in = models.PositiveIntegerField()
    patterns = ArrayField(models.CharField(max_length=200), default=list, blank=True)  # RE2, beside the built-in

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(one_in__gte=1, one_in__lte=1_000_000), name="body_sampling_range")
        ]

    def __str__(self) -> str:
        return f"one in {self.one_in} of {self.endpoint}"
