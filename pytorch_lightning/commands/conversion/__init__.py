"""What ``from_lightning`` does to a program: the code of Lightning 2 goes in, code of this library comes out."""
