"""From files to batches: what a data set holds, and how pictures are read, resized and batched."""
