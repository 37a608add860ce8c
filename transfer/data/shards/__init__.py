"""Images in tar shards, local or remote, read by byte range without unpacking."""
