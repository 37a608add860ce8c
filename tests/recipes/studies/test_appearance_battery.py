from dataclasses import replace

import numpy as np
from PIL import Image
from studies import appearance_battery, appearance_shifts
from studies.appearance_battery import BatteryConfig, battery_text, run_battery

from transfer.config.adapt import AdaptConfig, ShiftConfig, StepsConfig
from transfer.config.shared import BackboneConfig


def test_every_pair_has_a_row_and_every_part_a_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(
        appearance_shifts, "TRANSFORMS", {name: appearance_shifts.TRANSFORMS[name] for name in ("inverted", "blur")}
    )
    monkeypatch.setattr(appearance_shifts, "DEVELOPMENT", (("set",), ("inverted",)))
    rng = np.random.default_rng(0)
    for name, colour in (("ape", (220, 30, 30)), ("bee", (30, 30, 220))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    shift, steps = ShiftConfig(data_root=tmp_path), StepsConfig(device="cpu", epochs=1, steps=2, batch_size=4)
    base = AdaptConfig(shift, backbone=BackboneConfig("glyphnet"), steps=steps)
    config = BatteryConfig(base, sets=("set",), images=tmp_path / "looks")
    rows = run_battery(config)
    assert [row["pair"] for row in rows] == [pair.name for pair in appearance_shifts.list_pairs(["set"])]
    assert [row["development"] for row in rows] == [True] * 3 + [False] * 3
    for row in rows:
        assert row["gain"] == row["auto"] - row["source_only"]
        assert 0 <= row["auto"] <= 100
    assert run_battery(replace(config, part="held_out")) == rows[3:]
    text = battery_text(rows)
    assert all(row["pair"] in text for row in rows)
    assert "development: mean gain" in text
    assert "held out: mean gain" in text


def test_a_pair_counts_as_hurt_beyond_half_a_point():
    row = {"pair": "p", "development": False, "source_only": 50.0, "shares": "", "did": ""}
    rows = [row | {"auto": 50 + gain, "gain": gain} for gain in (-0.6, -0.4, 4.0)]
    last = battery_text(rows).splitlines()[-1]
    assert last == ("held out: mean gain +1.0 points, least -0.6; 1 of 3 pairs more than 0.5 points below source_only")
    assert appearance_battery.LOSS == 0.5
