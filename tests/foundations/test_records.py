import json
import math
from dataclasses import replace

import pytest

from collapse_bench.records import SCHEMA, Record, Score, Spent, num_ids, pack_ids, union_of_ids

SPENT = Spent(
    gradient_steps=60,
    networks_trained=2,
    candidates=80,
    kept=40,
    network_evaluations_per_sample=50,
    real_images_seen={"generator": 64, "verifier": 10},
    real_images={"generator": pack_ids(range(64)), "verifier": pack_ids(range(60, 70))},
    reused=("fit",),
    seconds={"fit": 0.125, "sample": 2.5},
)
RECORD = Record(
    generation=3,
    seed=7,
    scores=(
        Score("recall", "model", 0.1, 450, 450, "higher", low=0.05, high=1 / 3),
        Score("recall", "control", 0.9, 450, 450, "higher"),
        Score("fd", "model", 1e-300, 450, 449, "lower"),
    ),
    train_pool={"real": 64, "gen_002": 40},
    train_shares={"real": 0.75, "gen_002": 0.25},
    kept_labels="condition",
    num_parameters=1234,
    losses=((5, 0.7), (6, 2.0**-60)),
    encoder="abc",
    spent=SPENT,
)


def through_json(record: Record) -> Record:
    return Record.from_dict(json.loads(json.dumps(record.to_dict())))


def test_a_record_survives_json_exactly() -> None:
    assert through_json(RECORD) == RECORD
    assert through_json(replace(RECORD, scores=(), losses=(), train_pool={}, spent=Spent())).spent == Spent()


def test_an_older_record_without_judging_and_device_memory_has_none() -> None:
    content = RECORD.to_dict()
    for name in ("judging_evaluations", "peak_device_memory_mb", "artefact_keys"):
        del content["spent"][name]
    spent = Record.from_dict(content).spent
    assert (spent.judging_evaluations, spent.peak_device_memory_mb, spent.artefact_keys) == (0, 0, {})


def test_a_record_as_plain_values_is_json() -> None:
    content = RECORD.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["schema"] == SCHEMA


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null_and_comes_back_as_nan(value: float) -> None:
    record = replace(RECORD, scores=(Score("fd", "kept", value, 2, 3, "lower", low=value, high=1.0),))
    (stored,) = record.to_dict()["scores"]
    assert (stored["value"], stored["low"], stored["high"]) == (None, None, 1.0)
    (score,) = through_json(record).scores
    assert math.isnan(score.value)
    assert (score.metric, score.of, score.num_samples, score.num_reference) == ("fd", "kept", 2, 3)


def test_an_interval_that_was_not_computed_stays_absent() -> None:
    score = through_json(RECORD).scores[1]
    assert (score.low, score.high) == (None, None)


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, str(SCHEMA), None])
def test_a_record_of_another_schema_is_refused(schema: object) -> None:
    with pytest.raises(ValueError, match=f"schema {schema}, this version reads schema {SCHEMA}"):
        Record.from_dict({**RECORD.to_dict(), "schema": schema})
    without = RECORD.to_dict()
    del without["schema"]
    with pytest.raises(ValueError, match="schema None"):
        Record.from_dict(without)
    assert Record.from_dict(RECORD.to_dict()) == RECORD


@pytest.mark.parametrize("key", ["generation", "scores", "losses", "spent"])
def test_a_record_with_a_part_missing_is_refused_by_name(key: str) -> None:
    content = RECORD.to_dict()
    del content[key]
    with pytest.raises(KeyError, match=key):
        Record.from_dict(content)
    assert key not in content


def test_the_deterministic_part_leaves_out_clock_cache_and_memory_only() -> None:
    content = RECORD.to_dict()
    for name in ("seconds", "reused", "peak_memory_mb", "peak_device_memory_mb"):
        del content["spent"][name]
    assert RECORD.deterministic == content
    later = replace(RECORD, spent=replace(SPENT, seconds={"fit": 9.0}, reused=(), peak_memory_mb=9))
    assert later.deterministic == RECORD.deterministic


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORD, generation=4),
        replace(RECORD, seed=8),
        replace(RECORD, scores=RECORD.scores[:2]),
        replace(RECORD, scores=(replace(RECORD.scores[0], value=math.nextafter(0.1, 1)), *RECORD.scores[1:])),
        replace(RECORD, train_pool={"real": 65, "gen_002": 40}),
        replace(RECORD, kept_labels="none"),
        replace(RECORD, num_parameters=1),
        replace(RECORD, losses=((5, 0.7), (6, 0.0))),
        replace(RECORD, encoder="abd"),
        replace(RECORD, spent=replace(SPENT, gradient_steps=61)),
        replace(RECORD, spent=replace(SPENT, candidates=81)),
        replace(RECORD, spent=replace(SPENT, real_images_seen={"generator": 64})),
    ],
)
def test_the_deterministic_part_shows_every_other_difference(other: Record) -> None:
    assert other.deterministic != RECORD.deterministic


def test_asking_for_the_deterministic_part_does_not_change_the_record() -> None:
    before = RECORD.to_dict()
    RECORD.deterministic["scores"].clear()
    assert RECORD.to_dict() == before


def test_a_score_is_found_by_metric_and_by_what_was_measured() -> None:
    assert RECORD.score("recall") == 0.1
    assert RECORD.score("recall", of="control") == 0.9


@pytest.mark.parametrize(("metric", "of"), [("fd", "kept"), ("precision", "model")])
def test_a_score_that_was_not_measured_is_an_error_that_names_it(metric: str, of: str) -> None:
    with pytest.raises(KeyError, match=f"generation 3 has no '{metric}' of '{of}'"):
        RECORD.score(metric, of)
    assert (metric, of) not in {(score.metric, score.of) for score in RECORD.scores}


@pytest.mark.parametrize("sets", [[], [[]], [[0]], [[5, 3, 5]], [[1, 2], [2, 70_000]], [range(64), range(60, 70), []]])
def test_packed_sets_of_ids_are_counted_and_united_as_sets(sets: list[list[int]]) -> None:
    packed = [pack_ids(ids) for ids in sets]
    assert [num_ids(text) for text in packed] == [len(set(ids)) for ids in sets]
    assert union_of_ids(packed) == pack_ids(set().union(*sets))


def test_all_parts_together_have_seen_the_union_and_older_records_tell_the_most_of_a_part() -> None:
    assert SPENT.num_real_images == 70
    assert replace(SPENT, real_images={}).num_real_images == 64
    assert Spent().num_real_images == 0


def test_a_record_from_before_the_ids_were_recorded_is_read() -> None:
    content = RECORD.to_dict()
    del content["spent"]["real_images"]
    assert Record.from_dict(content).spent.real_images == {}
