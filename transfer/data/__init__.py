"""Images: tables, folder trees, splits, decoding, and the named sets."""
