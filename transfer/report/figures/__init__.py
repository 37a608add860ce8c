"""One file per figure of the report page, as SVG or PNG."""
