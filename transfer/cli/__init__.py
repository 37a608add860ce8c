"""The `transfer` command: parsing, what each subcommand calls, the demo."""
