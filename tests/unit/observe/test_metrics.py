"""What metrics promise: a closed list that the docs page shows, figures that say what was injected, nothing that a sender chose."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_crypto.errors import BrokerCryptoError, Tampered, UsageError
from broker_crypto.observe import FIGURES, NULL, PREFIX, Figure, MemoryMetrics, Metrics, figures

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def table(head: str) -> list[list[str]]:
    """Rows of the page's table whose first line begins so, cells without their back ticks."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def labels_of(figure: Figure) -> dict[str, str]:
    return {label: min(figure.words.get(label, {"orders"})) for label in figure.labels}


def child(metrics: Metrics, figure: Figure, **labels: str) -> object:
    return getattr(metrics, figure.kind)(figure.name, **labels)


def test_the_docs_page_lists_every_figure_with_its_type_labels_and_meaning_and_no_other() -> None:
    shown = {names(row[0])[0]: (row[1], tuple(names(row[2])), row[3]) for row in table("metric | type")}
    assert shown == {figure.name: (figure.kind, figure.labels, figure.meaning) for figure in FIGURES.values()}


def test_the_docs_page_lists_every_word_of_every_closed_label() -> None:
    shown = {row[0].strip("`"): set(names(row[1])) for row in table("label")}
    for figure in FIGURES.values():
        for label in figure.labels:
            assert label in " ".join(row[0] for row in table("label"))
        for label, words in figure.words.items():
            if label != "reason":
                assert shown[label] == words


def test_the_docs_page_lists_the_bounds_of_every_histogram() -> None:
    shown = {name: tuple(float(bound) for bound in row[1].split(",")) for row in table("metric | upper bounds") for name in names(row[0])}
    assert shown == {figure.name: figure.buckets for figure in FIGURES.values() if figure.kind == "histogram"}


def test_names_and_labels_are_such_that_every_backend_takes_them() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    makers = {"counter": prometheus.Counter, "gauge": prometheus.Gauge, "histogram": prometheus.Histogram}
    registry = prometheus.CollectorRegistry()
    for figure in FIGURES.values():
        more = {"buckets": figure.buckets} if figure.kind == "histogram" else {}
        makers[figure.kind](PREFIX + figure.name, figure.meaning, figure.labels, registry=registry, **more)
        assert (figure.kind == "counter") == figure.name.endswith("_total")
        assert bool(figure.buckets) == (figure.kind == "histogram")
        assert list(figure.buckets) == sorted(set(figure.buckets))
        assert "timestamp" not in figure.name or figure.name.endswith("_timestamp_seconds")
        assert set(figure.words) <= set(figure.labels)


@pytest.mark.parametrize("figure", FIGURES.values(), ids=lambda figure: figure.name)
def test_each_figure_says_what_was_injected_into_it(figure: Figure) -> None:
    metrics = MemoryMetrics()
    labels = labels_of(figure)
    if figure.kind == "counter":
        metrics.counter(figure.name, **labels).add()
        metrics.counter(figure.name, **labels).add(41)
        assert metrics.value(figure.name, **labels) == 42
    elif figure.kind == "gauge":
        metrics.gauge(figure.name, **labels).set(9)
        metrics.gauge(figure.name, **labels).set(7)
        assert metrics.value(figure.name, **labels) == 7
    else:
        for value in (0.0, figure.buckets[0], figure.buckets[-1], figure.buckets[-1] * 2):
            metrics.histogram(figure.name, **labels).observe(value)
        (sample,) = metrics.samples()
        assert sample.counts[0] == 2
        assert sample.counts[-2:] == (1, 1)
        assert sum(sample.counts) == metrics.value(figure.name) == 4
        assert sample.value == pytest.approx(figure.buckets[0] + 3 * figure.buckets[-1])


@pytest.mark.parametrize("metrics", [NULL, MemoryMetrics()], ids=["null", "memory"])
@pytest.mark.parametrize("figure", FIGURES.values(), ids=lambda figure: figure.name)
def test_another_kind_other_labels_or_a_word_outside_its_list_is_refused(metrics: Metrics, figure: Figure) -> None:
    labels = labels_of(figure)
    child(metrics, figure, **labels)
    for kind in {"counter", "gauge", "histogram"} - {figure.kind}:
        with pytest.raises(UsageError):
            getattr(metrics, kind)(figure.name, **labels)
    with pytest.raises(UsageError):
        child(metrics, figure, **labels, peer="agent://acme/eve")
    for label in labels:
        with pytest.raises(UsageError):
            child(metrics, figure, **{name: word for name, word in labels.items() if name != label})
    for label in figure.words:
        with pytest.raises(UsageError):
            child(metrics, figure, **labels | {label: "what a sender chose"})


@pytest.mark.parametrize("metrics", [NULL, MemoryMetrics()], ids=["null", "memory"])
def test_a_name_that_is_not_listed_is_refused(metrics: Metrics) -> None:
    for maker in (metrics.counter, metrics.gauge, metrics.histogram):
        with pytest.raises(UsageError):
            maker("records_lost_total")
    with pytest.raises(UsageError):
        MemoryMetrics().value("records_lost_total")


def test_every_error_code_is_a_reason_and_nothing_else_is() -> None:
    def tree(kind: type[BrokerCryptoError]) -> list[type[BrokerCryptoError]]:
        return [kind, *(found for under in kind.__subclasses__() for found in tree(under))]

    assert {kind.code for kind in tree(BrokerCryptoError) if kind.__module__ == "broker_crypto.errors"} == figures.REASONS
    MemoryMetrics().counter("records_refused_total", broker="main", topic="orders", reason=Tampered.code)


def test_the_same_labels_give_the_same_child_and_a_value_sums_over_labels_left_out() -> None:
    metrics = MemoryMetrics()
    metrics.counter("records_sealed_total", broker="a", topic="x").add(1)
    metrics.counter("records_sealed_total", topic="x", broker="a").add(2)
    metrics.counter("records_sealed_total", broker="b", topic="x").add(4)
    assert [sample.value for sample in metrics.samples()] == [3, 4]
    assert metrics.value("records_sealed_total", topic="x") == 7
    assert metrics.value("records_sealed_total", broker="c") == 0


def test_a_counter_never_shrinks() -> None:
    counter = MemoryMetrics().counter("store_errors_total")
    with pytest.raises(UsageError):
        counter.add(-1)


@given(st.lists(st.floats(min_value=0, max_value=20, allow_nan=False), max_size=50))
def test_every_observation_falls_into_the_first_bucket_that_holds_it(values: list[float]) -> None:
    metrics = MemoryMetrics()
    histogram = metrics.histogram("store_commit_seconds")
    for value in values:
        histogram.observe(value)
    (sample,) = metrics.samples()
    bounds = (*FIGURES["store_commit_seconds"].buckets, float("inf"))
    expected = [0] * len(bounds)
    for value in values:
        expected[next(n for n, bound in enumerate(bounds) if value <= bound)] += 1
    assert list(sample.counts) == expected


def test_children_count_right_from_several_threads() -> None:
    metrics = MemoryMetrics()

    def work() -> None:
        for _ in range(2000):
            metrics.counter("store_errors_total").add()
            metrics.histogram("store_commit_seconds").observe(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.value("store_errors_total") == metrics.value("store_commit_seconds") == 8000
