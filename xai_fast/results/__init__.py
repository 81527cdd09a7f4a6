"""What calls return: explanations of images and texts, maps and images of filters; saved, loaded, drawn."""
