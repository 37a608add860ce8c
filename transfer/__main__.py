"""``python -m transfer`` is the ``transfer`` command."""

from transfer.cli.main import main

raise SystemExit(main())
