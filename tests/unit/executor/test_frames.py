from __future__ import annotations

from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.children.frames import LENGTH, ResultFrame, RunFrame
from pixloom_executor.item_chain import Verdict


def test_a_batch_survives_the_way_to_a_child() -> None:
    frame = RunFrame(
        number=5,
        batch=pb.LeaseBatch(job_id="j", tasks=[pb.Task(shard=3)]),
        alone={3: [2, 1]},
        verdicts={3: {9: Verdict(1, "CRASHED", "why")}},
    )
    data = frame.encode()
    assert LENGTH.unpack(data[:4])[0] == len(data) - 4
    assert RunFrame.decode(data[4:]) == frame


def test_results_survive_the_way_back() -> None:
    frame = ResultFrame(number=7, results=[b"one", b"", b"three"], digests=["ab" * 32, "00" * 32], done=True)
    data = frame.encode()
    assert LENGTH.unpack(data[:4])[0] == len(data) - 4
    assert ResultFrame.decode(data[4:]) == frame
