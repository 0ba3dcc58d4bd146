"""The split is a function of names, classes and seed."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax.data.layout import Member
from rice_jax.data.split import SPLITS, split
from rice_jax.errors import UserError


def members(sizes):
    return [
        Member(label, f"{label}/{label} ({number}).jpg", "", 0, "")
        for label, size in sizes.items()
        for number in range(1, size + 1)
    ]


def names(parts):
    return {split: [member.name for member in of_split] for split, of_split in parts.items()}


def test_the_full_set_is_cut_as_the_study_cuts_it():
    full = members(dict.fromkeys(["Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag"], 15_000))
    parts = split(full, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 60_000,
        "validation": 7_500,
        "test": 7_500,
    }
    for name, each in [("train", 12_000), ("validation", 1_500), ("test", 1_500)]:
        assert set(collections.Counter(m.label for m in parts[name]).values()) == {each}


@settings(max_examples=60)
@given(
    sizes=st.dictionaries(st.text("abcé ", min_size=1), st.integers(3, 60), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    order=st.randoms(use_true_random=False),
)
def test_each_image_is_in_one_split_whatever_the_order(sizes, seed, order):
    listed = members(sizes)
    parts = split(listed, seed)
    assert sorted(name for part in names(parts).values() for name in part) == sorted(
        member.name for member in listed
    )
    for label, size in sizes.items():
        counts = [sum(m.label == label for m in parts[name]) for name in SPLITS]
        assert counts[1] == counts[2] >= 1
        assert abs(counts[1] - size / 10) <= 0.5 or counts[1] == 1
    order.shuffle(listed)
    assert names(split(listed, seed)) == names(parts)


def test_a_class_is_cut_the_same_whatever_the_other_classes():
    alone = split(members({"a": 40}), 7)
    among = split(members({"a": 40, "b": 25}), 7)
    for name in SPLITS:
        assert [m for m in among[name] if m.label == "a"] == alone[name]


def test_another_seed_cuts_another_way():
    listed = members({"a": 200})
    first, second = (set(names(split(listed, seed))["test"]) for seed in (0, 1))
    assert len(first & second) < 10  # 20 of 200 each: 2 in common are to be expected


def test_known_names_fall_where_they_did_on_every_machine():
    """The smallest SHA-256 tests, the next validates: printf '3/a/a (N).jpg' | sha256sum begins
    06fb for N = 3, 558e for 8, 5a50 for 4, 6179, 61bf, 75d1, ac58, b1dd, c390, ef00 for 2.
    """
    parts = names(split(members({"a": 10}), 3))
    assert parts["test"] == ["a/a (3).jpg"]
    assert parts["validation"] == ["a/a (8).jpg"]
    assert parts["train"][0] == "a/a (4).jpg"
    assert parts["train"][-1] == "a/a (2).jpg"


def own(counts):
    return [
        Member(label, f"{part}/{label}/{number}.jpg", "", 0, "", split=part)
        for (part, label), count in counts.items()
        for number in range(count)
    ]


def test_a_split_of_its_own_is_kept_and_shuffled():
    counts = {(part, label): n for n, part in enumerate(SPLITS, 5) for label in "ab"}
    listed = own(counts)
    parts = split(listed, 0)
    for part in SPLITS:
        assert {member.split for member in parts[part]} == {part}
        assert len(parts[part]) == 2 * counts[part, "a"]
    assert names(split(listed[::-1], 0)) == names(parts)
    assert names(split(listed, 1)) != names(parts)


@pytest.mark.parametrize("lacking", ["validation", "test"])
@given(sizes=st.lists(st.integers(2, 40), min_size=2, max_size=3), seed=st.integers(0, 2**31))
def test_a_split_that_is_not_there_is_cut_out_of_train(lacking, sizes, seed):
    other = {"validation": "test", "test": "validation"}[lacking]
    labels = "abc"[: len(sizes)]
    listed = own({("train", label): size for label, size in zip(labels, sizes, strict=True)})
    kept = own({(other, label): 2 for label in labels})
    parts = split([*listed, *kept], seed)
    assert sorted(names(parts)[other]) == sorted(member.name for member in kept)
    assert {*names(parts)["train"], *names(parts)[lacking]} == {m.name for m in listed}
    for label, size in zip(labels, sizes, strict=True):
        cut = sum(member.label == label for member in parts[lacking])
        assert cut == max(1, int(size / 10 + 0.5))


def test_a_class_of_one_cannot_be_cut():
    listed = own({("train", "a"): 2, ("train", "b"): 1, ("test", "a"): 1, ("test", "b"): 1})
    with pytest.raises(UserError, match=r"'b' has 1 of the 2 images .* training and validation"):
        split(listed, 0)


def test_a_class_that_a_split_of_its_own_lacks_is_named():
    with pytest.raises(UserError, match="the test folder has no image of class 'b'"):
        split(own({(part, label): 3 for part in SPLITS for label in "ab"} | {("test", "b"): 0}), 0)


def test_classes_of_two_are_refused():
    with pytest.raises(UserError, match="class 'b' has 2 of the 3 images"):
        split(members({"a": 3, "b": 2}), 0)
