"""``python -m transfer`` runs the ``transfer`` command."""

from transfer.cli.main import run

run()
