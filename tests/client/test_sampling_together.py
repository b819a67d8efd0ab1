"""Batches of many clients, drawn side by side, are those that each client draws alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsafe.client.stacked import packing
from fedsafe.client.trainer import ClientJob, LocalTraining
from fedsafe.rng import Stream, StreamId


def jobs(sizes):
    def stream(purpose, client):
        return Stream(bytes(32), StreamId(purpose=purpose, client=client, round=1, digest=b""))

    ends = np.cumsum(sizes)
    return [
        ClientJob(
            client=client,
            records=np.arange(end - size, end)[::-1].copy(),
            batches=stream("batches", client),
            noise=stream("record noise", client),
        )
        for client, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 40, 70]), min_size=1, max_size=120),
    st.sampled_from([0.01, 0.5, 1.0]),
    st.integers(1, 3),
    st.sampled_from([1, 300, 2**18]),
)
def test_together_and_alone_are_the_same_batches(sizes, rate, steps, at_once):
    way = LocalTraining(learning_rate=1.0, steps=steps, rate=rate, clip=1.0, noise=1.0)
    kept, packing._DRAWN_AT_ONCE = packing._DRAWN_AT_ONCE, at_once
    try:
        together = packing._sampled(jobs(sizes), [way] * len(sizes))
    finally:
        packing._DRAWN_AT_ONCE = kept
    alone = [job.sample(way) for job in jobs(sizes)]
    assert [[batch.tolist() for batch in one] for one in together] == [
        [b.tolist() for b in one] for one in alone
    ]
