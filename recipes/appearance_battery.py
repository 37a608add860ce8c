"""Does `auto` hurt? Photographs against edges, sketches, inverted, posterised, pixelated, noisy and blurred images.

Both directions, equal and unequal class shares, on Office-31, flowers12 and the digits: 63 pairs. The rules of auto
were set on some of the data sets and transforms; the others report. Some 35 minutes of processor time, faster with
OMP_NUM_THREADS=1 where other programs are busy. Transformed images and their features are cached.
"""

from studies.appearance_battery import BatteryConfig, battery_text, run_battery

from transfer.cli.main import script


def main(config: BatteryConfig) -> None:
    print("\n" + battery_text(run_battery(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, BatteryConfig()))
