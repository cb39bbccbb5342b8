"""What several raw formats have in common: files in, plain values out."""
