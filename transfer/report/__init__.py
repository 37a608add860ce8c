"""Reports of finished runs: the HTML page, its figures and the console text. Reads result files only."""
