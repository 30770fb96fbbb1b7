"""Embeddings on a real Postgres: written once, gone with their film, and ranked as numpy ranks them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from sqlalchemy import Engine, text

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store import counters, search
from shared.store.jobs import jobs
from shared.store.operations import metrics
from shared.store.runs import runs
from shared.store.search import ExcludedCounts, Neighbour, SearchFilter, embeddings, ranking
from shared.store.search.embeddings import QueryVector, VideoPart
from shared.store.videos import videos
from shared.values import Artifact, Embedding, JobState, Progress, Run, RunState, new_id
from tests.support import factories
from tests.support.statements import lock_is_awaited
from tests.support.waiting import wait_until

A, B = "a" * 64, "b" * 64
SHOTS, FILMS = SearchFilter("shot"), SearchFilter("video")


def one(engine: Engine, statement: str, **values: object) -> object:
    with engine.begin() as connection:
        return connection.execute(text(statement), values).scalar_one()


def count(engine: Engine) -> object:
    return one(engine, "SELECT count(*) FROM embeddings")


def ask(engine: Engine, run: Run, part: VideoPart | None = None, weights: str | None = None) -> QueryVector:
    return embeddings.query_from_video(engine, run.video_id, part or VideoPart(), weights=weights)


def places(found: Sequence[Neighbour]) -> list[tuple[str, int]]:
    return [(near.run_id, near.seq) for near in found]


def ranked(vectors: np.ndarray, asked: np.ndarray) -> list[int]:
    """Numbers of the vectors by cosine, in float64."""
    cosines = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    return [int(at) for at in np.argsort(-cosines, kind="stable")]


def drawn(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Vectors that lie in no order, of very different lengths."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((count, dimensions)) * generator.uniform(0.01, 100, (count, 1))).astype("float32")


# Written ------------------------------------------------------------------------------------------------------------


def test_vectors_are_kept_to_the_bit_with_what_they_may_be_compared_with(database: Engine) -> None:
    vector = array("f", drawn(1, 1, 2048)[0])
    run = factories.add_embeddings(database, [vector], per="video")
    question = ask(database, run)
    assert array("f", question.vector) == vector
    assert (question.model, question.weights, question.run_id) == ("r2plus1d", A, run.id)
    assert (question.seq, question.range, question.vectors) == (None, None, 1)


def test_a_fenced_run_writes_no_vector_and_a_repeated_end_writes_none_twice(database: Engine) -> None:
    job = factories.create_job(database, analyses=(factories.make_analysis("r2plus1d"),))
    zombie = factories.claim_run(database, job.runs[0].id)
    one(database, "UPDATE runs SET lease_until = now() - interval '1 s' RETURNING 1")
    heir = factories.claim_run(database, job.runs[0].id, "worker-2")
    assert zombie is not None
    assert heir is not None
    found = [Embedding(0, None, array("f", [1.0, 2.0]))]
    rest = {"progress": Progress((), 1.0), "weights": A, "decode_failures": 0, "results": [], "artifacts": []}
    assert runs.finish_run(database, zombie, embeddings=found, **rest) is None
    assert count(database) == 0
    assert runs.finish_run(database, heir, embeddings=found, **rest) == ()
    assert runs.finish_run(database, heir, embeddings=found, **rest) == ()
    assert runs.finish_run(database, zombie, embeddings=found, **rest) is None
    assert count(database) == 1


def on_insert(engine: Engine, then: str) -> None:
    """Let Postgres do something whenever a vector is written."""
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE FUNCTION met() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {then}; RETURN NEW; END $$")
        )
        connection.execute(text("CREATE TRIGGER met BEFORE INSERT ON embeddings FOR EACH ROW EXECUTE FUNCTION met()"))


def test_a_fence_lost_while_vectors_are_written_takes_them_back(database: Engine) -> None:
    on_insert(database, "UPDATE runs SET fence = fence + 1 WHERE id = NEW.run_id")
    run = factories.add_embeddings(database, [[1, 0]], per="video")
    assert (run.state, count(database)) == (RunState.RUNNING, 0)
    assert metrics.read_metrics(database).counters == {(counters.RESULTS_DROPPED, (("model", "r2plus1d"),)): 1}


def test_the_heartbeat_and_a_cancel_get_through_while_vectors_are_written(database: Engine) -> None:
    on_insert(database, "PERFORM pg_advisory_xact_lock(7)")
    job = factories.create_job(database, analyses=(factories.make_analysis("r2plus1d"),))
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    found = [Embedding(seq, None, array("f", [1, seq])) for seq in range(2)]
    rest = {"progress": Progress((), 1.0), "weights": A, "decode_failures": 0, "results": [], "artifacts": []}
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
            end = pool.submit(runs.finish_run, database, claim, embeddings=found, **rest)
            wait_until("vectors are being written", lambda: lock_is_awaited(database))
            assert runs.touch_run(database, claim, Progress(), 30) is not None
            assert jobs.cancel_job(database, job.id).state is JobState.CANCELLING
            assert not end.done()
        assert end.result() == ()
    assert count(database) == 2


def test_vectors_of_no_weights_are_a_bug(database: Engine) -> None:
    with pytest.raises(ValueError, match="no weights"):
        factories.add_embeddings(database, [[1.0]], per="video", weights="")
    assert count(database) == 0


def test_vectors_go_with_their_film_and_with_their_run(database: Engine) -> None:
    film, other = (
        factories.add_embeddings(database, [[1.0, 0], [0, 1]]),
        factories.add_embeddings(database, [[1.0, 1]], per="video"),
    )
    assert count(database) == 3
    videos.delete_video(database, film.video_id)
    assert count(database) == 1
    jobs.delete_job(database, jobs.list_jobs(database, limit=1)[0].id)
    assert count(database) == 0
    with pytest.raises(Conflict, match="run r2plus1d"):
        ask(database, other)


# Asked with ---------------------------------------------------------------------------------------------------------


def test_a_range_is_the_mean_of_its_shots_by_the_time_inside(database: Engine) -> None:
    """Shots of two seconds: from 1 s to 5 s lie one second of the first, all of the second, one of the third."""
    run = factories.add_embeddings(database, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]], seconds=2)
    question = ask(database, run, VideoPart(start_s=Fraction(1), end_s=Fraction(5)))
    mean = np.array(question.vector) / np.linalg.norm(question.vector)
    assert mean == pytest.approx(np.array([1, 2, 1]) / np.sqrt(6), abs=1e-6)
    assert question.vectors == 3
    assert question.range is not None
    assert (question.range.start.frame, question.range.end.frame) == (0, 144)
    until_the_end = ask(database, run, VideoPart(start_s=Fraction(6)))
    assert (until_the_end.vectors, until_the_end.range.start.seconds) == (1, 6)  # type: ignore[union-attr]
    edge = ask(database, run, VideoPart(start_s=Fraction(2), end_s=Fraction("2.000001")))
    assert edge.vectors == 1  # ends are exclusive
    with pytest.raises(InvalidRequest, match="No embedded shot"):
        ask(database, run, VideoPart(start_s=Fraction(8)))


def test_a_film_embedded_per_shot_is_the_mean_of_its_shots(database: Engine) -> None:
    run = factories.add_embeddings(database, [[3, 0], [0, 1], [0, 1], [0, 1]])
    question = ask(database, run)
    assert np.array(question.vector) / question.vector[0] == pytest.approx([1, 1])
    assert (question.vectors, question.range) == (4, None)


def test_a_shot_by_its_number(database: Engine) -> None:
    run = factories.add_embeddings(database, [[1, 0], [0, 1]])
    question = ask(database, run, VideoPart(seq=1))
    assert (question.vector, question.seq) == ([0, 1], 1)
    assert question.range is not None
    assert question.range.start.frame == 24
    with pytest.raises(NotFound, match="no embedding of that number"):
        ask(database, run, VideoPart(seq=2))


def test_what_cannot_be_asked_says_what_to_do(database: Engine) -> None:
    bare, whole = factories.add_video(database), factories.add_embeddings(database, [[1, 0]], per="video")
    with pytest.raises(NotFound, match="no such video"):
        embeddings.query_from_video(database, "vid_none", VideoPart())
    with pytest.raises(Conflict, match="run r2plus1d on it"):
        embeddings.query_from_video(database, bare.id, VideoPart())
    for part in (VideoPart(seq=0), VideoPart(start_s=Fraction(0))):
        with pytest.raises(Conflict, match="per=shot"):
            ask(database, whole, part)
    with pytest.raises(Conflict, match=rf"no embedding of the weights {B}\. It has embeddings of: {A} \(r2plus1d\)"):
        ask(database, whole, weights=B)
    with pytest.raises(Conflict, match="all zero"):
        ask(database, factories.add_embeddings(database, [[0, 0]], per="video"))


def test_a_vector_of_the_callers_own(database: Engine) -> None:
    run = factories.add_embeddings(database, [[1, 0, 0]], per="video")
    for length in (2, 1e-30, 1e30):
        found = search.find_neighbours(database, embeddings.query_from_vector(database, [length, length, 0], A), FILMS)
        assert [(near.run_id, near.similarity) for near in found] == [(run.id, pytest.approx(np.sqrt(0.5)))]
    with pytest.raises(NotFound, match="No video has"):
        embeddings.query_from_vector(database, [1, 0, 0], B)
    with pytest.raises(InvalidRequest, match="have 3 numbers; the vector has 2"):
        embeddings.query_from_vector(database, [1, 0], A)
    for numbers in ([0, 0, 0], [1e300, 0, 0]):
        with pytest.raises(InvalidRequest, match="no direction"):
            embeddings.query_from_vector(database, numbers, A)


# Ranked -------------------------------------------------------------------------------------------------------------


def test_weights_are_never_mixed(database: Engine) -> None:
    asked, like = (factories.add_embeddings(database, [[1, 0]], per="video") for _ in range(2))
    other = factories.add_embeddings(database, [[1, 0]], per="video", weights=B)
    shots = factories.add_embeddings(database, [[1, 0]])
    question = ask(database, asked)
    wanted = SearchFilter("video", exclude_video_id=asked.video_id)
    assert places(search.find_neighbours(database, question, wanted)) == [(like.id, 0)]
    assert search.count_excluded(database, question, wanted) == ExcludedCounts(other_weights=1, other_per=1)
    per_shot = SearchFilter("shot", exclude_video_id=asked.video_id)
    assert places(search.find_neighbours(database, question, per_shot)) == [(shots.id, 0)]
    assert search.count_excluded(database, question, per_shot) == ExcludedCounts(other_weights=1, other_per=1)
    assert places(search.find_neighbours(database, ask(database, other), FILMS)) == [(other.id, 0)]


def test_of_several_weights_the_newest_are_taken_unless_some_are_named(database: Engine) -> None:
    old = factories.add_embeddings(database, [[1, 0]], per="video")
    new = factories.add_embeddings(database, [[0, 1]], per="video", weights=B, video_id=old.video_id)
    assert new.id != old.id
    assert (ask(database, old).weights, ask(database, old, weights=A).vector) == (B, [1, 0])
    shots = factories.add_embeddings(database, [[1, 1]], video_id=old.video_id)
    assert ask(database, old).run_id == old.id  # the newest run has the weights A, and of these there is a whole film
    assert ask(database, old, VideoPart(seq=0)).run_id == shots.id


def test_of_several_runs_with_the_same_weights_the_newest_speaks_for_the_film(database: Engine) -> None:
    old = factories.add_embeddings(database, [[1, 0]], per="video")
    new = factories.add_embeddings(database, [[0, 1]], per="video", clips=5, video_id=old.video_id)
    asked = factories.add_embeddings(database, [[1, 0]], per="video")
    assert ask(database, old).run_id == new.id
    assert places(
        search.find_neighbours(database, ask(database, asked), SearchFilter("video", exclude_video_id=asked.video_id))
    ) == [(new.id, 0)]


def test_two_thousand_vectors_in_the_order_of_their_cosines(database: Engine) -> None:
    vectors = drawn(2, 2000, 64)
    made = [
        factories.add_embeddings(
            database, vectors[at : at + 500].tolist(), labels={"half": str(at // 1000), "part": str(at)}
        )
        for at in range(0, 2000, 500)
    ]
    numbers = {(run.id, seq): at * 500 + seq for at, run in enumerate(made) for seq in range(500)}
    for labels, known in (({}, range(2000)), ({"half": "1"}, range(1000, 2000)), ({"half": "1", "part": "0"}, ())):
        wanted = SearchFilter("shot", labels=labels, limit=2000)
        found = search.find_neighbours(database, ask(database, made[0], VideoPart(seq=7)), wanted)
        order = [at for at in ranked(vectors.astype("float64"), vectors[7].astype("float64")) if at in known]
        assert [numbers[place] for place in places(found)] == order[: search.POOL_SIZE]
    first = search.find_neighbours(database, ask(database, made[0], VideoPart(seq=7)), SHOTS)[0]
    assert (numbers[first.run_id, first.seq], first.similarity) == (7, pytest.approx(1, abs=1e-6))


def test_the_graph_finds_what_arithmetic_finds(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 vectors the graph is asked for 40, with and without a filter; it gives up where the filter is narrow."""
    monkeypatch.setattr(ranking, "EXACT_LIMIT", 10)
    monkeypatch.setattr(ranking, "POOL_SIZE", 40)
    vectors = drawn(3, 300, 2048)
    made = [
        factories.add_embeddings(
            database, vectors[at : at + 30].tolist(), labels={"odd": str(at // 30 % 2), "part": str(at)}
        )
        for at in range(0, 300, 30)
    ]
    numbers = {(run.id, seq): at * 30 + seq for at, run in enumerate(made) for seq in range(30)}
    odd = [at for at in range(300) if at // 30 % 2]
    for labels, known in (({}, range(300)), ({"odd": "1"}, odd), ({"odd": "1", "part": "270"}, range(270, 300))):
        hits = 0
        for seq in range(10):
            found = search.find_neighbours(
                database, ask(database, made[3], VideoPart(seq=seq)), SearchFilter("shot", labels, limit=10)
            )
            order = [at for at in ranked(vectors, vectors[90 + seq]) if at in known]
            got = [numbers[place] for place in places(found)]
            assert [at for at in order if at in got] == got  # what it finds stands in order
            hits += len(set(got) & set(order[:10]))
        assert hits >= 98
    assert scans(database) >= 20


def scans(engine: Engine) -> int:
    """How often the graph of shots was read."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.rollback()
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        return int(connection.execute(text(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_embeddings_shot_cosine'"
        )).scalar_one())  # fmt: skip


def test_vectors_of_any_size_are_in_the_graph(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits hold neither 1e-20 nor 1e20: they are normalised before."""
    monkeypatch.setattr(ranking, "EXACT_LIMIT", 0)
    monkeypatch.setattr(ranking, "POOL_SIZE", 3)
    one_way = np.eye(3, 2048, dtype="float32")
    run = factories.add_embeddings(
        database, (one_way * np.array([[1e-18], [1e17], [0]], "float32")).tolist() + one_way.tolist()
    )
    found = search.find_neighbours(database, ask(database, run, VideoPart(seq=0)), SHOTS)
    assert [(near.seq, round(near.similarity, 6)) for near in found] == [(0, 1), (3, 1), (1, 0)]


def test_pages_fit_together_whatever_is_added_and_taken_away(database: Engine) -> None:
    """Steps of an angle; two vectors of each, so that ids must decide."""
    angles = np.repeat(np.linspace(0, 1.5, 20), 2)
    run = factories.add_embeddings(database, np.stack([np.cos(angles), np.sin(angles)], 1).tolist())
    question = ask(database, run, VideoPart(seq=0))
    seen: list[Neighbour] = []
    while page := search.find_neighbours(
        database, question, SearchFilter("shot", limit=7, after=seen[-1].position if seen else None)
    ):
        assert len(page) <= 7
        seen += page
        factories.add_embeddings(
            database, [[1, 0.001 * len(seen)]]
        )  # nearer than what is seen: it does not come in between
    mine = [near for near in seen if near.run_id == run.id]
    assert [near.seq for near in mine] == list(range(40))
    assert len(set(places(seen))) == len(seen)
    assert sorted(seen, key=lambda near: near.position) == seen


def test_a_vector_without_direction_is_like_nothing(database: Engine) -> None:
    run = factories.add_embeddings(database, [[1, 0], [0, 0], [-1, 0]])
    found = search.find_neighbours(database, ask(database, run, VideoPart(seq=0)), SHOTS)
    assert [(near.seq, near.similarity) for near in found] == [(0, 1), (2, -1)]


def test_a_shot_comes_with_its_times_its_film_and_its_keyframes(database: Engine) -> None:
    archive = Artifact(new_id("art"), "keyframes", "keyframes.zip", "application/zip", "0" * 64, 5)
    run = factories.add_embeddings(database, [[1, 0], [0, 1]], keyframes=[archive], seconds=3)
    film = factories.add_embeddings(database, [[1, 0]], per="video", video_id=run.video_id)
    near = search.find_neighbours(database, ask(database, run, VideoPart(seq=1)), SHOTS)[0]
    assert (near.video.id, near.keyframes) == (run.video_id, archive.id)
    assert near.range is not None
    assert (near.range.start.seconds, near.range.end.seconds) == (3, 6)
    whole = search.find_neighbours(database, ask(database, film), FILMS)[0]
    assert (whole.run_id, whole.range, whole.keyframes) == (film.id, None, None)


def test_a_film_that_was_asked_with_can_be_left_out(database: Engine) -> None:
    run, other = (factories.add_embeddings(database, [[1, 0], [0, 1]]) for _ in range(2))
    question = ask(database, run, VideoPart(seq=0))
    assert places(search.find_neighbours(database, question, SearchFilter("shot", exclude_video_id=run.video_id))) == [
        (other.id, 0), (other.id, 1)
    ]  # fmt: skip
    assert places(search.find_neighbours(database, question, SHOTS))[:2] == [(run.id, 0), (other.id, 0)]


def test_a_list_goes_on_with_the_run_that_it_began_with(database: Engine) -> None:
    old = factories.add_embeddings(database, [[1, 0]], per="video")
    factories.add_embeddings(database, [[0, 1]], per="video", weights=B, video_id=old.video_id)
    again = embeddings.query_from_video(database, old.video_id, VideoPart(), run_id=old.id)
    assert (again.vector, again.weights) == ([1, 0], A)
    with pytest.raises(Conflict, match="are gone"):
        embeddings.query_from_video(database, old.video_id, VideoPart(), run_id="run_none")
