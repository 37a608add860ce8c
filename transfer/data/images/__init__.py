"""Images of a table: decoding, preprocessing, augmentation and batches."""
