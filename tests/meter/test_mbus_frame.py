"""Frames on a line that carries other things, too."""

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.klefr.meter.mbus.frame import (
    FRAME_COUNT_BIT,
    Acknowledgement,
    Control,
    ControlInformation,
    Frame,
    FrameParser,
    LongFrame,
    ShortFrame,
    SpecialAddress,
)
from tests.data.mbus import telegrams

ANSWER = telegrams()["klefr_6933"]
REQUEST = ShortFrame(control=Control.REQ_UD2, address=0)
LONGEST = 261

unhurried = settings(deadline=None)

controls = st.sampled_from([c | b for c in Control for b in (0, FRAME_COUNT_BIT)])
addresses = st.integers(0, 255)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.just(Acknowledgement()),
    st.builds(ShortFrame, control=controls, address=addresses),
    st.builds(
        LongFrame,
        control=controls,
        address=addresses,
        information=st.sampled_from(ControlInformation),
        data=st.binary(max_size=252),
    ),
)
# More often than not what begins, ends or fills frames.
noise = st.lists(
    st.one_of(st.sampled_from(b"\x10\x16\x68\x03\x04\xe5\xff\x00"), st.integers(0, 255)),
    max_size=40,
).map(bytes)


def heard(*pieces: bytes) -> list[Frame]:
    """Take pieces of what is on the line, and then its silence."""
    parser = FrameParser()
    return [frame for piece in pieces for frame in parser.feed(piece)] + parser.flush()


@pytest.mark.parametrize(
    ("frame", "on_the_line"),
    [
        (Acknowledgement(), "E5"),
        (ShortFrame(control=Control.SND_NKE, address=0), "10 40 00 40 16"),
        (ShortFrame(control=Control.REQ_UD2, address=1), "10 5B 01 5C 16"),
        (
            ShortFrame(
                control=Control.REQ_UD2 | FRAME_COUNT_BIT, address=SpecialAddress.EVERYBODY_ANSWERS
            ),
            "10 7B FE 79 16",
        ),
        (
            LongFrame(control=Control.SND_UD, address=1, information=ControlInformation.BAUD_2400),
            "68 03 03 68 53 01 BB 0F 16",
        ),
        (
            LongFrame(
                control=Control.SND_UD,
                address=1,
                information=ControlInformation.DATA_SEND,
                data=bytes.fromhex("01 7A 02"),
            ),
            "68 06 06 68 53 01 51 01 7A 02 22 16",
        ),
        (
            LongFrame(
                control=Control.SND_UD,
                address=SpecialAddress.SELECTED,
                information=ControlInformation.SLAVE_SELECT,
                data=bytes.fromhex("39 10 09 22 CD 25 FF FF"),
            ),
            "68 0B 0B 68 53 FD 52 39 10 09 22 CD 25 FF FF 06 16",
        ),
    ],
)
def test_frames_are_what_the_manual_and_the_standard_put_on_the_line(
    frame: Frame, on_the_line: str
) -> None:
    assert frame.encode() == bytes.fromhex(on_the_line)
    assert FrameParser().feed(bytes.fromhex(on_the_line)) == [frame]


def test_a_meters_answer_is_one_frame() -> None:
    assert FrameParser().feed(ANSWER) == [
        LongFrame(
            control=Control.RSP_UD,
            address=0,
            information=ControlInformation.VARIABLE_DATA,
            data=ANSWER[7:-2],
        )
    ]


@unhurried
@given(st.lists(frames, max_size=5))
def test_frames_of_both_directions_are_read_as_they_were_written(sent: list[Frame]) -> None:
    parser = FrameParser()
    assert parser.feed(b"".join(frame.encode() for frame in sent)) == sent
    assert parser.missing == 0


@pytest.mark.parametrize("place", range(len(ANSWER)))
@pytest.mark.parametrize("damage", [0x01, 0x80, 0xFF])
def test_a_damaged_frame_is_no_frame(place: int, damage: int) -> None:
    damaged = bytearray(ANSWER)
    damaged[place] ^= damage
    assert heard(bytes(damaged)) == []


@pytest.mark.parametrize("place", range(1, len(ANSWER)))
def test_half_a_frame_is_no_frame_and_does_not_keep_the_next_one_away(place: int) -> None:
    (answer,) = heard(ANSWER)
    assert heard(ANSWER[:place]) == []
    assert heard(ANSWER[:place], ANSWER) == [answer]
    assert heard(ANSWER[place:], ANSWER) == [answer]


@pytest.mark.parametrize(
    "broken",
    [
        "10 40 00 41 16",
        "10 40 00 40 17",
        "68 02 02 68 53 01 54 16",
        "68 00 00 68 00 16",
        "68 03 04 68 53 01 BB 0F 16",
        "68 04 03 68 53 01 BB 0F 16",
        "68 03 03 10 53 01 BB 0F 16",
        "68 03 03 68 53 01 BB 10 16",
        "68 03 03 68 53 01 BB 0F 15",
        "68 04 04 68 53 01 BB 0F 16",
    ],
)
def test_what_breaks_the_rules_is_no_frame_and_hides_none(broken: str) -> None:
    assert heard(bytes.fromhex(broken)) == []
    assert heard(bytes.fromhex(broken), REQUEST.encode()) == [REQUEST]


@pytest.mark.parametrize(
    ("begun", "missing"),
    [
        ("", 0),
        ("00 FF 16", 0),
        ("E5", 0),
        ("10", 4),
        ("10 40 00 40", 1),
        ("10 40 00 40 16", 0),
        ("68", 8),
        ("68 4B", 79),
        ("68 4B 4B", 78),
        ("68 4B 4B 68", 77),
        ("68 FF FF 68", 257),
        ("00 00 68 03 03 68 53 01 BB 0F", 1),
        # Refuted by the last byte, so nobody has to wait.
        ("68 02", 0),
        ("68 4B 4A", 0),
        ("68 4B 4B 69", 0),
        ("10 40 00 41 16", 0),
        # Refuted by a byte that begins a frame itself.
        ("68 4B 4B 10", 4),
        ("68 4B 68", 8),
        ("68 68", 108),
    ],
)
def test_it_is_known_how_much_a_frame_lacks(begun: str, missing: int) -> None:
    parser = FrameParser()
    parser.feed(bytes.fromhex(begun))
    assert parser.missing == missing


def test_silence_ends_what_has_begun() -> None:
    parser = FrameParser()
    parser.feed(ANSWER[:-1])
    assert parser.flush() == []
    assert parser.missing == 0
    assert parser.feed(ANSWER[-1:]) == []


def test_the_echo_of_a_request_comes_before_its_answer() -> None:
    (answer,) = heard(ANSWER)
    assert FrameParser().feed(REQUEST.encode() + ANSWER) == [REQUEST, answer]


@pytest.mark.parametrize("start", ["10", "68", "68 FF", "68 FF FF", "68 FF FF 68"])
def test_a_false_start_hides_an_answer_only_until_the_line_is_silent(start: str) -> None:
    (answer,) = heard(ANSWER)
    assert heard(bytes.fromhex(start) + ANSWER) == [answer]


def test_a_false_start_hides_nothing_for_longer_than_the_longest_frame() -> None:
    parser = FrameParser()
    parser.feed(bytes.fromhex("68 FF FF 68"))
    found = [frame for _ in range(LONGEST) for frame in parser.feed(REQUEST.encode())]
    assert len(found) >= LONGEST - 1
    assert set(found) == {REQUEST}


@unhurried
@given(st.lists(noise, min_size=20, max_size=20), st.integers(0, 255))
def test_no_noise_is_kept_that_is_longer_than_the_longest_frame(
    pieces: list[bytes], filler: int
) -> None:
    parser = FrameParser()
    for piece in pieces:
        parser.feed(piece + bytes((filler,)) * 20)
        assert parser.missing <= LONGEST
    # What is kept hides what follows.
    requests = LONGEST // len(REQUEST.encode()) + 2
    assert REQUEST in parser.feed(REQUEST.encode() * requests)


@unhurried
@given(noise, frames)
def test_noise_keeps_no_frame_away_that_comes_after_a_silence(before: bytes, frame: Frame) -> None:
    parser = FrameParser()
    parser.feed(before)
    parser.flush()
    assert parser.feed(frame.encode()) == [frame]


@unhurried
@given(noise, frames.filter(lambda frame: not isinstance(frame, Acknowledgement)))
def test_noise_right_before_a_frame_keeps_it_away_until_silence_at_most(
    before: bytes, frame: Frame
) -> None:
    assert frame in heard(before + frame.encode())


@unhurried
@given(
    st.lists(
        st.one_of(
            noise,
            frames.map(lambda frame: frame.encode()),
            st.tuples(frames, st.integers(1, 20)).map(lambda cut: cut[0].encode()[: -cut[1]]),
        ),
        max_size=6,
    ).map(b"".join),
    st.data(),
)
def test_it_does_not_matter_how_the_line_is_cut_up(line: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(line)), max_size=8).map(sorted))
    whole, cut_up = FrameParser(), FrameParser()
    at_once = whole.feed(line)
    by_pieces = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(line)], strict=True)
        for frame in cut_up.feed(line[start:end])
    ]
    assert by_pieces == at_once
    assert cut_up.missing == whole.missing
    assert cut_up.flush() == whole.flush()


def test_frames_in_the_data_of_a_frame_are_data() -> None:
    carrier = LongFrame(
        control=Control.RSP_UD,
        address=1,
        information=ControlInformation.VARIABLE_DATA,
        data=b"\xe5" + REQUEST.encode() + ANSWER + b"\xe5",
    )
    line = carrier.encode()
    parser = FrameParser()
    assert [frame for byte in line for frame in parser.feed(bytes((byte,)))] == [carrier]


VALUES_WITH_E5 = LongFrame(
    control=Control.RSP_UD,
    address=1,
    information=ControlInformation.VARIABLE_DATA,
    data=bytes.fromhex("E5 00 E5 E5"),
)


@pytest.mark.parametrize("length", range(1, len(VALUES_WITH_E5.encode())))
def test_no_acknowledgement_is_read_out_of_values(length: int) -> None:
    line = VALUES_WITH_E5.encode()
    damaged = line[:-2] + bytes((line[-2] ^ 1, line[-1]))
    assert heard(line[:length]) == []
    assert heard(damaged) == []
    assert heard(damaged[:length], damaged[length:], line) == [VALUES_WITH_E5]


@pytest.mark.parametrize("before", ["00", "FF 16", "10 40 00 40 17", "10", "68", "68 03", "68 68"])
def test_an_acknowledgement_is_found_behind_noise(before: str) -> None:
    assert heard(bytes.fromhex(before), b"\xe5") == [Acknowledgement()]


def test_an_acknowledgement_is_found_behind_a_broken_frame_once_the_line_was_silent() -> None:
    parser = FrameParser()
    assert parser.feed(ANSWER[:40]) == []
    assert parser.flush() == []
    assert parser.feed(b"\xe5") == [Acknowledgement()]


def test_an_acknowledgement_right_behind_a_damaged_frame_is_one() -> None:
    damaged = ANSWER[:-1] + b"\x17"
    assert FrameParser().feed(damaged + b"\xe5") == [Acknowledgement()]


def test_a_frame_that_begins_in_half_a_frame_is_not_trusted_less() -> None:
    (answer,) = heard(ANSWER)
    assert heard(ANSWER[:40] + ANSWER + REQUEST.encode()) == [answer, REQUEST]
