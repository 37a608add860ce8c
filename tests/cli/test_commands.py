import inspect

import pytest

from transfer.cli.commands import COMMANDS, JSON_COMMANDS
from transfer.cli.main import main
from transfer.data.corrections import Correction, CorrectionFile


def test_a_config_belongs_to_one_command_and_commands_with_json_take_the_flag():
    kinds = [kind for kind, _ in COMMANDS.values()]
    assert len(set(kinds)) == len(kinds)
    for name, (kind, call) in COMMANDS.items():
        parameters = list(inspect.signature(call).parameters.values())
        assert parameters[0].annotation is kind
        assert [p.name for p in parameters[1:]] == (["as_json"] if name in JSON_COMMANDS else [])


def test_data_shows_how_a_folder_is_read(capsys, images):
    folder = images.paths[0].rsplit("/", 3)[0]
    assert main(["data", folder]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"images    {len(images):,} in {len(images.objects)} classes")
    assert main(["data", folder, "--labels", "none.csv"]) == 2
    assert "--labels: no file none.csv" in capsys.readouterr().err
    assert main(["data", folder, "--verify"]) == 2
    assert "only digits, office31 have them" in capsys.readouterr().err
    assert main(["data", "ofice31"]) == 2
    assert "did you mean 'office31'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("actions", "last"), [([], "nothing"), (["relabel"], "next"), (["relabel", "undo"], "nothing")]
)
def test_serve_names_the_next_command_where_a_correction_holds(actions, last, tmp_path, monkeypatch, capsys):
    pytest.importorskip("fastapi", reason="needs the extra 'server'")
    file = CorrectionFile(tmp_path / "corrections" / "labels.csv")
    for action in actions:
        file.append(Correction("a.png", "0" * 64, "mug", "pen" if action == "relabel" else "", "", action))
    monkeypatch.setattr("transfer.server.serve_run.serve_run", lambda config: None)
    assert main(["serve", str(tmp_path)]) == 0
    end = {"next": f"next: transfer update {tmp_path} --corrections {file.path}", "nothing": "nothing is corrected"}
    assert capsys.readouterr().out.splitlines()[-1] == end[last]
