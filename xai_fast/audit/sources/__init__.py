"""Where images come from: a folder, a table of paths, a table that holds them, tar files; on a disk or behind a URL."""
