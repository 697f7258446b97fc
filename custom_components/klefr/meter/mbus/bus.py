"""One M-Bus line: opens it and talks to one meter on it at a time."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final, override

from ..bus import ADAPTER_DELAY, ATTEMPTS, LATE, LONGEST_FRAME, OwnBus
from ..errors import (
    CommunicationError,
    GarbledAnswerError,
    KlefrError,
    NoAnswerError,
    NotAcknowledgedError,
    NotAKlefrMeterError,
)
from ..link import UART_PIECE, Protocol, SerialLink
from .frame import (
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
from .record import Telegram, parse, parse_header

# What a meter may take to start answering (EN 13757-2): bit times, and seconds on top.
ANSWER_BITS: Final = 330
ANSWER_DELAY: Final = 0.05
# How long the line has to be idle before a request, in bit times (EN 13757-2).
IDLE_BITS: Final = 33

# What a meter may add to any answer: that it has urgent data, or no room for more commands.
STATION_BITS: Final = 0x30

LONGEST_READOUT: Final = 16  # telegrams
READOUTS_KEPT: Final = 9
"""Of so many, the usual time is taken."""

ANY_MANUFACTURER: Final = 0xFFFF

type Check = Callable[[list[Telegram]], None]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A telegram, and the frame that carried it."""

    frame: LongFrame
    telegram: Telegram


@dataclass(frozen=True, kw_only=True)
class SecondaryAddress:
    """What meters are selected by, with wildcards for their version and medium."""

    identification: str
    """8 digits, each of them or the wildcard F."""
    manufacturer: int = ANY_MANUFACTURER

    def selection(self) -> bytes:
        """Return the data of the frame that selects the meters (manual, appendix 2.2)."""
        return (
            bytes.fromhex(self.identification)[::-1]
            + self.manufacturer.to_bytes(2, "little")
            + b"\xff\xff"
        )

    def selects(self, data: bytes) -> bool:
        """Return whether an answer with this data is from a meter that is selected."""
        identification = data[:4][::-1].hex().upper()
        return len(identification) == len(self.identification) and all(
            wanted in ("F", digit)
            for wanted, digit in zip(self.identification, identification, strict=True)
        )


ANY_METER: Final = SecondaryAddress(identification="F" * 8)

type Target = int | SecondaryAddress
"""A primary address, 0 to 250, or a secondary one."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a meter has to do."""

    information: ControlInformation = ControlInformation.DATA_SEND
    data: bytes = b""


class MBusBus(OwnBus):
    """The M-Bus meters on one link.

    A turn on the line is a whole conversation with one meter. With a secondary address it is
    selected first. After a readout it stays selected, until the next selection deselects it or
    the port is closed; after all else it is deselected at once. So two meters never answer together.
    """

    protocol = Protocol.MBUS

    def __init__(self, link: SerialLink) -> None:
        """Remember the link; nothing is opened yet."""
        super().__init__(link)
        self._next_count_bits: dict[int, bool] = {}
        self._maybe_selected = True
        self._selected: SecondaryAddress | None = None
        """What is selected, if that is known."""
        self._attempts = ATTEMPTS
        self._observed_address: int | str | None = None
        self._slack = ADAPTER_DELAY
        self._late_until = 0.0
        self._readout_times: dict[Target, deque[float]] = defaultdict(
            partial(deque, maxlen=READOUTS_KEPT)
        )

    @property
    @override
    def silence(self) -> float:
        return IDLE_BITS / self.link.baud_rate

    async def read(self, target: Target) -> list[Telegram]:
        """Read all telegrams of a meter's readout.

        Raises NotAKlefrMeterError if something answers that does not send records.
        """
        return [answer.telegram for answer in await self.read_answers(target)]

    async def read_answers(self, target: Target) -> list[Answer]:
        """Like `read`, with the frames that carried the telegrams."""
        async with self._reached(target, select=False) as address:
            began = asyncio.get_running_loop().time()
            if isinstance(target, SecondaryAddress):
                answers = await self._read_selected(target)
                # It may stay selected. Nothing else is.
                self._selected = target
            else:
                answers = await self._read_out(target, address)
            self._readout_times[target].append(asyncio.get_running_loop().time() - began)
            return answers

    def readout_time(self, target: Target) -> float:
        """Return how long the line usually needs for a meter's readout, in seconds."""
        return median(self._readout_times[target] or (0.0,))

    async def find(self, target: Target, *, attempts: int = 1) -> Telegram | None:
        """Ask which meter answers, waiting no longer than a meter may take.

        Returns the answer of the one meter that answers, without records if it cannot be read
        beyond its header, or None if no meter answers. Raises
        GarbledAnswerError if several meters answer, and NotAKlefrMeterError for something
        that does not send records.
        """
        try:
            async with self._reached(target, attempts=attempts, slack=0.0) as address:
                try:
                    frame = await self._ask(target, address)
                except NoAnswerError as err:
                    # Their acknowledgements may look like one where their answers do not.
                    raise GarbledAnswerError("Several meters answered") from err
        except NoAnswerError:
            return None
        try:
            header = parse_header(frame.data)
        except GarbledAnswerError as err:
            raise NotAKlefrMeterError("It answers without a header") from err
        try:
            return parse(frame.data)
        except GarbledAnswerError:
            return Telegram(
                header=header,
                records=(),
                unknown=(),
                more_records_follow=False,
                manufacturer_data=b"",
            )

    async def is_answered(self) -> bool:
        """Ask all meters at once, to see whether any has the line settings of this bus.

        Their answers collide, so whatever arrives is one.
        """
        async with self._turn:
            await self._open()
            self._next_count_bits.clear()
            try:
                with self._observed(None) as attempt:
                    await self._exchange(
                        ShortFrame(
                            control=Control.REQ_UD2, address=SpecialAddress.EVERYBODY_ANSWERS
                        ).encode(),
                        FrameParser(),
                        lambda frame: True,
                        attempt,
                        delay=ANSWER_BITS / self.link.baud_rate + ANSWER_DELAY,
                        slack=0.0,
                        length=UART_PIECE,
                    )
            except NoAnswerError:
                pass
            except GarbledAnswerError:
                return True
            else:
                return True
        # Some do not answer that. A selection is acknowledged by all that it selects.
        try:
            return await self.find(ANY_METER) is not None
        except GarbledAnswerError, NotAKlefrMeterError:
            return True

    async def write(self, target: Target, command: Command, check: Check) -> None:
        """Send a command to a meter, and have it acknowledged.

        The meter is read first. `check` is given the readout, and raises to prevent the
        writing. Raises NotAcknowledgedError if the meter does not acknowledge.
        """
        async with self._reached(target) as address:
            check([answer.telegram for answer in await self._read_out(target, address)])
            await self._send(address, command)
            # From now on another meter may have the address.
            del self._next_count_bits[address]

    async def _read_selected(self, target: SecondaryAddress) -> list[Answer]:
        """Select a meter if it is not selected already, and read all telegrams.

        A selection deselects the meter before. If that did not hear it, both answer. Or the meter
        that is taken to be selected lost its power meanwhile. So if this fails once, deselect all.
        """
        if self._selected is not None:
            attempts, self._attempts = self._attempts, 1
            try:
                if self._selected != target:
                    await self._select(target)
                return await self._read_out(target, SpecialAddress.SELECTED)
            except CommunicationError:
                if target in self._silent:
                    raise
                self._attempts, self._maybe_selected = attempts, True
        await self._select_alone(target)
        return await self._read_out(target, SpecialAddress.SELECTED)

    @asynccontextmanager
    async def _reached(
        self,
        target: Target,
        *,
        attempts: int | None = None,
        slack: float = ADAPTER_DELAY,
        select: bool = True,
    ) -> AsyncIterator[int]:
        """Take a turn on the line, and say at which primary address the meter answers.

        A request is sent up to `attempts` times, or as often as `_patience` says.
        `slack` is what adapters may take on top of what is usual, in seconds. Without `select`,
        a meter with a secondary address is not selected yet.
        """
        address = target if isinstance(target, int) else SpecialAddress.SELECTED
        async with self._turn:
            await self._open()
            try:
                self._slack = slack
                self._observed_address = (
                    target if isinstance(target, int) else target.identification
                )
                with self._patience(target, attempts) as self._attempts:
                    if isinstance(target, SecondaryAddress):
                        if select:
                            await self._select_alone(target)
                    elif address not in self._next_count_bits:
                        await self._reset(address)
                    yield address
            except BaseException:
                # What the meter has seen of it is not known: start with it afresh.
                self._next_count_bits.pop(address, None)
                if isinstance(target, SecondaryAddress):
                    self._selected = None
                raise
            finally:
                selectable = isinstance(target, SecondaryAddress)
                if selectable and self._maybe_selected and self._selected is None:
                    await self._deselect()

    async def _select_alone(self, target: SecondaryAddress) -> None:
        """Deselect whatever may be selected, and select a meter."""
        if self._maybe_selected:
            await self._deselect()
        await self._select(target)

    async def _select(self, target: SecondaryAddress) -> None:
        self._maybe_selected, self._selected = True, None
        selection = LongFrame(
            control=Control.SND_UD,
            address=SpecialAddress.SELECTED,
            information=ControlInformation.SLAVE_SELECT,
            data=target.selection(),
        )
        try:
            await self._repeat(selection, _is_acknowledgement)
        except NoAnswerError:
            self._maybe_selected = False
            raise
        self._next_count_bits[SpecialAddress.SELECTED] = True

    async def _deselect(self) -> None:
        # A meter that does not hear it is deselected by the next selection.
        self._maybe_selected, self._selected = False, None
        with suppress(KlefrError):
            await self._send_once(
                ShortFrame(control=Control.SND_NKE, address=SpecialAddress.SELECTED),
                _is_acknowledgement,
                None,
            )

    async def _reset(self, address: int) -> None:
        """Let the meter expect a new request, with the frame count bit set."""
        await self._repeat(
            ShortFrame(control=Control.SND_NKE, address=address), _is_acknowledgement
        )
        self._next_count_bits[address] = True

    async def _read_out(self, target: Target, address: int) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < LONGEST_READOUT:
            frame = await self._ask(target, address)
            answers.append(Answer(frame=frame, telegram=parse(frame.data)))
            if not answers[-1].telegram.more_records_follow:
                return answers
        raise GarbledAnswerError("The readout does not end")

    async def _ask(self, target: Target, address: int) -> LongFrame:
        """Return the frame with the next telegram of a readout."""

        def is_answer(frame: Frame) -> bool:
            if not isinstance(frame, LongFrame) or frame.control & ~STATION_BITS != Control.RSP_UD:
                return False
            # A late answer of another meter has another address.
            if isinstance(target, SecondaryAddress):
                return target.selects(frame.data)
            return frame.address == target

        request = ShortFrame(control=self._counted(Control.REQ_UD2, address), address=address)
        answer = await self._repeat(request, is_answer)
        assert isinstance(answer, LongFrame)
        self._next_count_bits[address] = not self._next_count_bits[address]
        if answer.information != ControlInformation.VARIABLE_DATA:
            raise NotAKlefrMeterError(f"It answers with CI {answer.information:02X}")
        return answer

    async def _send(self, address: int, command: Command) -> None:
        # An acknowledgement does not say of what, so one that is late must not come now.
        await asyncio.sleep(self._late_until - asyncio.get_running_loop().time())
        try:
            await self._repeat(
                LongFrame(
                    control=self._counted(Control.SND_UD, address),
                    address=address,
                    information=command.information,
                    data=command.data,
                ),
                _is_acknowledgement,
            )
        except CommunicationError as err:
            raise NotAcknowledgedError("The meter does not acknowledge") from err

    def _counted(self, control: Control, address: int) -> int:
        return control | FRAME_COUNT_BIT if self._next_count_bits[address] else control

    async def _repeat(self, request: Frame, accept: Callable[[Frame], bool]) -> Frame:
        """Send a request until it is answered, up to `_attempts` times.

        The frame count bit stays the same, so a meter whose answer was lost sends it again
        and does nothing twice.
        """
        for _ in range(self._attempts - 1):
            with suppress(CommunicationError):
                return await self._send_once(request, accept, self._observed_address)
        return await self._send_once(request, accept, self._observed_address)

    async def _send_once(
        self, request: Frame, accept: Callable[[Frame], bool], observed: int | str | None
    ) -> Frame:
        """Send a request once and return the frame that is accepted.

        It counts for a meter's address, or for none if no meter has to answer.
        """
        try:
            with self._observed(observed) as attempt:
                return await self._exchange(
                    request.encode(),
                    FrameParser(),
                    accept,
                    attempt,
                    delay=ANSWER_BITS / self.link.baud_rate + ANSWER_DELAY,
                    slack=self._slack,
                    length=1 if accept is _is_acknowledgement else LONGEST_FRAME,
                )
        except BaseException:
            self._late_until = asyncio.get_running_loop().time() + LATE
            raise

    @override
    async def _open(self) -> None:
        before = self._listener
        await super()._open()
        if self._listener is not before:
            # What the meters heard over another link, or while it was broken, is not known.
            self._next_count_bits.clear()
            self._maybe_selected, self._selected = True, None

    @override
    async def _close(self) -> None:
        if self._transport is not None and self._selected is not None:
            # It must not disturb what uses the port next.
            await self._deselect()
        await super()._close()


def _is_acknowledgement(frame: Frame) -> bool:
    return isinstance(frame, Acknowledgement)
