"""Observe: the figures an agent shows (docs/metrics.md), a protocol that backends fill, one backend that shows nothing, one in memory."""

from broker_crypto.observe.figures import FIGURES, PREFIX, Figure
from broker_crypto.observe.metrics import NULL, Counter, Gauge, Histogram, MemoryMetrics, Metrics, NullMetrics, Sample, StoreFigures

__all__ = [
    "FIGURES",
    "NULL",
    "PREFIX",
    "Counter",
    "Figure",
    "Gauge",
    "Histogram",
    "MemoryMetrics",
    "Metrics",
    "NullMetrics",
    "Sample",
    "StoreFigures",
]
