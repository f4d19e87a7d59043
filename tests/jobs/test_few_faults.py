"""Where less than one fault is expected in all trials, the answer says so; elsewhere nothing."""

import pytest

ONE = {"campaign__design": "bernoulli", "campaign__trials": 3, "campaign__strata": "network"}


def test_a_campaign_of_rare_faults_says_that_it_expects_less_than_one(result_of):
    weights = 3 * 3 * 3 * 6 + 6 * 6 + 6 * 4
    result = result_of("campaign", **ONE, campaign__rates=[2e-10, 0.1])
    (note,) = result["notes"]
    assert note["kind"] == "few-faults" and note["cells"] == 1
    assert note["expected_faults"] == pytest.approx(3 * weights * 2 * 2e-10)
    assert "1 of 2 cells expect less than one fault in all their trials" in note["text"]
    assert result_of("campaign", **ONE, campaign__rates=[0.1])["notes"] == []


@pytest.mark.slow
@pytest.mark.parametrize("job", ["partition", "online", "distribute"])
def test_other_jobs_say_so_too(result_of, job):
    rates = {"faults__weight_rate": [1e-12], "faults__activation_rate": [1e-13]}
    own = {"distribute__flips": True, "distribute__devices": [2]} if job == "distribute" else {}
    (note,) = result_of(job, **rates, **own)["notes"]
    assert note["kind"] == "few-faults" and 0 < note["expected_faults"] < 1e-6
    assert "faults in expectation" in note["text"]
