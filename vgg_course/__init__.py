"""VGG in notebooks: the package behind the course. Read ``vgg.py`` first; the README has a map of the rest."""
