"""One analysis or one model becomes many members."""
