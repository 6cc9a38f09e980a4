"""What an engine says about the shadow path of its runs."""

from mllm_tvm.demo import MODEL_DIR
from mllm_tvm.demo.stories import stories
from mllm_tvm.frontend import load_model
from mllm_tvm.runtime.engine import Engine

PROMPT = next(stories(seed=3, count=1))[:400]


def test_stats_count_the_outliers_of_each_run(demo_artifact):
    """Hits and misses are those of the last run, whatever an engine did before; decoded tokens count too."""
    ids = load_model(MODEL_DIR).tokenizer.encode(PROMPT)
    with Engine(demo_artifact, "host") as engine:
        engine.forward(ids)
        first = engine.stats.shadow
        engine.forward(ids)
        assert engine.stats.shadow == first
        engine.decode(ids[1])
        assert {row[3] for row in engine.stats.shadow.rows} == {len(ids) + 1}
    assert {row[3] for row in first.rows} == {len(ids)}
    assert first.hits + first.misses > 0
    assert 0 < first.outlier_share < 0.02
    assert first.outliers > first.outlier_share
    assert 0 < first.resident_share < 0.03
    assert first.report()["rows_read"] == first.hits + first.misses
