"""Images per second of the networks on the shortlist: modelled, as `transfer backbones` shows it, and measured.

python tests/benchmarks/network_speed.py
"""

from statistics import geometric_mean

import machine

from transfer.backbones.shortlist import read_shortlist
from transfer.backbones.speed import CALIBRATION, calibrate_speed, measure_rate
from transfer.runtime.device import pick_device


def main() -> None:
    """Print the table, and the mean factor between the two."""
    device = pick_device("auto")
    work = {name: work for name, *_, work in read_shortlist()}
    rates = {name: measure_rate(name, device) for name in work}
    fitted = calibrate_speed(rates, work)
    rows, factors = [["network", "modelled /s", "measured /s", "modelled / measured"]], []
    for name, measured in rates.items():
        modelled = fitted.predict(work[name])
        ratio = modelled / measured
        rows.append([name, f"{modelled:.1f}", f"{measured:.1f}", f"{ratio:.2f}"])
        if name not in CALIBRATION:
            factors.append(max(ratio, 1 / ratio))
    print(machine.describe())
    print(machine.format_table(rows))
    print(f"mean factor between them, without the networks that calibrate: {geometric_mean(factors):.2f}")


if __name__ == "__main__":
    main()
