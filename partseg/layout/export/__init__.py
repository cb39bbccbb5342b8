"""The common layout in the forms of other tools."""
