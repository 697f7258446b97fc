"""What a program feeds a meter is what the meter shows."""

import pytest

from simulator.feed import show
from simulator.meter import VirtualMeter
from simulator.registers import Registers


@pytest.fixture
def meter() -> VirtualMeter:
    return VirtualMeter(clock=lambda: 0.0)


@pytest.mark.parametrize("key", ["0x5012", "0X5012", "total active power", "Total active power"])
def test_a_register_is_named_by_address_or_content(meter: VirtualMeter, key: str) -> None:
    show(meter, f'{{"{key}": -1.25}}')
    assert Registers(meter).value(0x5012) == -1.25


def test_what_is_fed_stays_until_it_is_taken_back(meter: VirtualMeter) -> None:
    own = Registers(meter).value(0x500C)
    show(meter, '{"L1 current": 5.5, "0x5012": 1}')
    show(meter, '{"0x5012": 2}')
    assert [Registers(meter).value(a) for a in (0x500C, 0x5012)] == [5.5, 2]
    show(meter, '{"L1 current": null, "0x6000": null}')
    assert Registers(meter).value(0x500C) == own


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1", "JSON object"),
        ("{", "Expecting"),
        ('{"0x5000": 230, "0x7000": 1}', "no register '0x7000'"),
        ('{"0x5000": 230, "voltage of the moon": 1}', "no register"),
        ('{"0x5000": 230, "0x5012": "1"}', "no number"),
        ('{"0x5000": 230, "0x5012": true}', "no number"),
        ('{"0x5000": 230, "0x5012": 1e99}', "cannot hold"),
        ('{"0x5000": 230, "0x4003": NaN}', "cannot hold"),
    ],
)
def test_a_wrong_line_changes_nothing(meter: VirtualMeter, line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        show(meter, line)
    assert not meter.overrides
