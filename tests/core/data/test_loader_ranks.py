"""Two ranks with three workers each draw what one process draws, to the bit; of every sampler and data set."""

import pytest
from loading import epochs, loader, write_store

import registry
from core.infer.geometry import Geometry

DATASETS = {
    "slices": "{name: slices, keep: all}",
    "crops": "{name: slices, keep: all, crop: liver, crop_size: 16, jitter: 0.5}",
    "patches": "{name: patches, patch: [4, 16, 16], liver: 5, elsewhere: 4}",
}
EPOCH = 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def drawn(store):
    """(data set, sampler) -> what one process without workers draws, by position in the epoch."""
    return {(d, s): draw(store, d, s) for d in DATASETS for s in registry.names("sampler")}


def draw(store, dataset, sampler, **options):
    """An epoch's samples by position: record, and the bytes of image, label and lesion ids."""
    found = loader(
        store,
        dataset=DATASETS[dataset],
        sampler=f"{{name: {sampler}}}",
        geometry=Geometry(divisor=4),
        lesions=True,
        micro_batch=2,
        **options,
    )
    if hasattr(found.sampler, "observe"):  # as between two epochs of a training
        found.sampler.observe(found.order(0), [float(i * i % 7) for i in found.order(0)])
    samples = {}
    for batch in epochs(found, (EPOCH, 0)):
        for i, position in enumerate(batch.positions):
            fields = [t[i].numpy().tobytes() for t in (batch.image, batch.label, batch.lesion)]
            samples[position] = (batch.indices[i], *fields)
    found.close()
    return samples


@pytest.mark.parametrize("sampler", registry.names("sampler"))
@pytest.mark.parametrize(
    ("dataset", "start"),
    [("slices", "thread"), ("slices", "fork"), ("crops", "thread"), ("patches", "thread"), ("patches", "fork")],
)
def test_two_ranks_with_three_workers_draw_what_one_process_does(store, drawn, start, dataset, sampler):
    wanted = drawn[dataset, sampler]
    ranks = [
        draw(store, dataset, sampler, rank=rank, world=2, workers=3, worker_start=start, prefetch=1) for rank in (0, 1)
    ]
    assert set(ranks[0]).isdisjoint(ranks[1])
    assert ranks[0] | ranks[1] == wanted
    assert sorted(wanted) == list(range(len(wanted)))


def test_the_samples_differ_by_position_although_a_record_is_drawn_twice(drawn):
    # Else the tests above would hold for a data set that draws nothing.
    for dataset in ("crops", "patches"):
        seen: dict[int, set[bytes]] = {}
        for index, image, *_ in drawn[dataset, "lesion_balanced"].values():
            seen.setdefault(index, set()).add(image)
        assert max(len(images) for images in seen.values()) > 1, dataset


def test_a_sampler_that_follows_the_loss_draws_otherwise_without_it(store, drawn):
    plain = loader(store, dataset=DATASETS["patches"], sampler="{name: hard_examples}", geometry=Geometry(divisor=4))
    samples = drawn["patches", "hard_examples"]
    assert [samples[i][0] for i in range(len(samples))] != plain.order(EPOCH)[: len(samples)]
    plain.close()
