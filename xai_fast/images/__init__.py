"""Photographs: files, modes, preprocessing, segments, baselines, and how an input is shown as a picture again."""
