"""Policies as they are written."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import TransferError
from transfer.freeze import POLICIES, FreezePolicy, register_policy, summarise_policies
from transfer.freeze.policies import Gradual, Head2Toe, LinearProbe, LpFt, Partial, Scratch, Surgical

PLAIN = st.one_of(
    st.sampled_from(["linear_probe", "full", "norm_only", "scratch", "lp_ft", "gradual"]).map(FreezePolicy.parse),
    st.one_of(*(st.builds(policy, st.integers(1, 99)) for policy in (Partial, LpFt, Gradual))),
    st.builds(Surgical, st.sampled_from(Surgical.THIRDS)),
    st.just(Gradual(order="bottom_up")),
)
SHARE = st.one_of(st.none(), st.floats(0.001, 100).map(lambda x: round(x, 4)))
ANY = st.one_of(PLAIN, SHARE.map(lambda x: Head2Toe(x)))
ANY |= st.builds(dataclasses.replace, PLAIN, dropped=st.integers(1, 99))


@given(policy=ANY)
def test_parse_and_str_round_trip(policy: FreezePolicy) -> None:
    assert FreezePolicy.parse(str(policy)) == policy
    assert FreezePolicy.parse(f" {policy} ") == policy
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.dropped = 1  # type: ignore[misc]


@given(
    text=st.text(max_size=12)
    | st.sampled_from([*POLICIES, "truncate", "truncate:1+", "truncate:2+full", "head2toe:1"]).flatmap(
        lambda k: st.text(max_size=4).map(k.__add__) | st.text(max_size=4).map(f"{k}:".__add__)
    )
)
def test_any_text_is_a_policy_or_one_clear_line(text: str) -> None:
    message = ""
    try:
        policy = FreezePolicy.parse(text)
    except TransferError as error:
        message = str(error)
    else:
        assert FreezePolicy.parse(str(policy)) == policy
    assert "\n" not in message
    assert not message or repr(text) in message or message.startswith("unknown policy")


def test_partial_alone_means_two_stages() -> None:
    assert FreezePolicy.parse("partial") == FreezePolicy.parse("partial:2")


def test_truncate_alone_is_a_linear_probe_on_the_rest() -> None:
    assert FreezePolicy.parse("truncate:3") == LinearProbe(dropped=3)
    assert FreezePolicy.parse("truncate:3+linear_probe") == FreezePolicy.parse("truncate:3")
    assert str(FreezePolicy.parse("truncate:3 + lp_ft:2")) == "truncate:3+lp_ft:2"
    assert FreezePolicy.parse("truncate:1+scratch") == Scratch(dropped=1)


def test_head2toe_takes_a_percentage_or_none() -> None:
    assert FreezePolicy.parse("head2toe") == Head2Toe()
    assert FreezePolicy.parse("head2toe:2.5") == Head2Toe(2.5)
    assert str(FreezePolicy.parse("head2toe:10.0")) == "head2toe:10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "linear-probe",
            r"unknown policy 'linear-probe' \(did you mean 'linear_probe'\?\); known: linear_probe, partial",
        ),
        ("zebra", r"unknown policy 'zebra'; known: .*scratch, auto, truncate"),
        ("trunkate:2", r"unknown policy 'trunkate' \(did you mean 'truncate'\?\)"),
        ("truncate:2+fall", r"unknown policy 'fall' \(did you mean 'full'\?\)"),
        ("truncate", "'truncate': write a number of stages after the colon, such as truncate:2$"),
        ("truncate:0+full", "'truncate:0[+]full': write a number of stages after the colon, such as truncate:2$"),
        ("truncate:1+partial:0", "'truncate:1[+]partial:0': write .* such as partial:2$"),
        ("truncate:1+truncate:1", "truncate occurs twice; add up the stages"),
        ("truncate:1+head2toe", "head2toe chooses among all stages; leave truncate out"),
        ("truncate:1+stage_probes", "stage_probes chooses among all stages; leave truncate out"),
        ("truncate:1+auto", "auto chooses among all stages; leave truncate out"),
        ("full+truncate:1", "only truncate can precede another policy"),
        ("head2toe:0", "a percentage of features after the colon, above 0 and up to 100, such as head2toe:10"),
        ("head2toe:101", "above 0 and up to 100"),
        ("head2toe:nan", "above 0 and up to 100"),
        ("head2toe:1e1", "above 0 and up to 100"),
        ("head2toe:", "above 0 and up to 100"),
        ("partial:0", "write a number of stages after the colon, such as partial:2"),
        ("partial:", "write a number of stages after the colon"),
        ("partial:-1", "write a number of stages after the colon"),
        ("partial:two", "write a number of stages after the colon"),
        ("gradual:²", "write a number of stages after the colon"),
        ("gradual:bottom", "write a number of stages after the colon, such as gradual:2 or gradual:bottom_up"),
        ("partial:bottom_up", "write a number of stages after the colon, such as partial:2$"),
        ("full:3", "full takes no argument after the colon"),
        ("surgical", "'surgical': write one of surgical:first, surgical:middle, surgical:last"),
        ("surgical:", "'surgical:': write one of surgical:first"),
        ("surgical:top", "write one of surgical:first"),
    ],
)
def test_errors_suggest_the_correct_form(text: str, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        FreezePolicy.parse(text)


def test_every_policy_has_a_summary_and_a_usage_that_begins_with_its_name() -> None:
    for policy in POLICIES.values():
        assert policy.summary
        assert policy.usage.startswith(policy.name) or not policy.usage
    assert list(summarise_policies())[:2] == ["linear_probe", "partial[:N]"]
    assert "truncate:N[+POLICY]" in summarise_policies()


@pytest.mark.parametrize("name", ["", "Upper", "two words", "a:b", "truncate"])
def test_a_policy_needs_a_name_that_can_be_written(name: str) -> None:
    with pytest.raises(TransferError, match="must be lower-case letters"):
        register_policy(type("Nameless", (FreezePolicy,), {"name": name}))


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(TransferError, match=r"'full' is registered already, by transfer[.]freeze[.]policies[.]Full"):
        register_policy(type("Other", (FreezePolicy,), {"name": "full"}))
    assert register_policy(POLICIES["full"]) is POLICIES["full"]


def test_a_policy_without_phases_is_refused() -> None:
    class Unfinished(FreezePolicy):
        name = "unfinished"

    with pytest.raises(TransferError, match=r"Unfinished: define phases\(\)"):
        register_policy(Unfinished)
    assert "unfinished" not in POLICIES
    with pytest.raises(TypeError, match="abstract"):
        Unfinished()
