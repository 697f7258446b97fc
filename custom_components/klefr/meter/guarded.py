"""Read a meter so that only true energies come out."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from .errors import KlefrError
from .guard import READ_AGAIN_SECONDS, judge, limits_of
from .meter import Meter
from .model import CalculationCode, Quantity, Setting, SettingValue
from .relations import CODED, companions
from .verdict import Memory, Moment, Verdict


class GuardedReader:
    """Reads one meter, and remembers what it said."""

    def __init__(self, meter: Meter, memory: Memory, clock: Callable[[], Moment]) -> None:
        """Go on from what was remembered. `clock` says what time it is."""
        self.memory = memory
        self.settings: dict[Setting, SettingValue | None] = {}
        """What the meter said of settings in the last reading."""
        self._meter = meter
        self._clock = clock
        self._code: CalculationCode | None = None
        self._said: CalculationCode | None = None
        self._reset: Moment | None = None

    def assume_code(self, code: CalculationCode | None) -> None:
        """Judge by this calculation code the readings that do not hold one themselves."""
        self._code = code

    def expect_reset(self) -> None:
        """Believe that the resettable counter starts from zero now."""
        self._reset = self._clock()

    async def read(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> Verdict:
        """Read these quantities, a second time if the first does not say enough.

        What is read along with them, `settings` and `identified` are as `Meter.read_along` has
        them. Raises what it raises. If only the second reading fails, the first one counts: what
        was believed in it must be heard of. The verdict wants nothing to be read at once.
        """
        self.settings = {}
        wanted, checked_with = self._with_companions(quantities)
        verdict = await self._read_once(wanted, {*settings, *checked_with}, identified=identified)
        if verdict.read_again_after == 0:
            with suppress(KlefrError):
                second = await self._read_once(wanted, {Setting.CALCULATION_CODE})
                verdict = replace(
                    second,
                    jumps=(*verdict.jumps, *second.jumps),
                    suspect=verdict.suspect or second.suspect,
                )
        if verdict.read_again_after == 0:
            # Answers that are too far apart would not belong together.
            return replace(verdict, read_again_after=READ_AGAIN_SECONDS)
        return verdict

    def line_time(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> float:
        """Return how long the bus usually needs for one reading, in seconds."""
        wanted, checked_with = self._with_companions(quantities)
        return self._meter.line_time(
            wanted, settings={*settings, *checked_with}, identified=identified
        )

    def _with_companions(
        self, quantities: Collection[Quantity]
    ) -> tuple[frozenset[Quantity], Collection[Setting]]:
        """Return what is read, and the setting that it is checked with."""
        wanted = companions(frozenset(quantities)) & self._meter.quantities
        return wanted, (() if CODED.isdisjoint(wanted) else (Setting.CALCULATION_CODE,))

    async def _read_once(
        self,
        quantities: Collection[Quantity],
        settings: Collection[Setting],
        *,
        identified: bool = True,
    ) -> Verdict:
        reading = await self._meter.read_along(quantities, settings=settings, identified=identified)
        self.settings |= reading.settings
        code = reading.settings.get(Setting.CALCULATION_CODE)
        if isinstance(code, CalculationCode):
            # Once may be misread, also where the settings were read.
            if code is self._said:
                self._code = code
            self._said = code
        verdict = judge(
            self.memory,
            reading.values,
            now=self._clock(),
            limits=limits_of(self._meter.identity),
            # A code that was misread once counts for nothing but its own reading.
            code=code if isinstance(code, CalculationCode) else self._code,
            reset=self._reset,
            spread=reading.spread,
        )
        self.memory = verdict.memory
        return verdict
