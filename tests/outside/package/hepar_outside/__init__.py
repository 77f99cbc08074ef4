"""Components in an installed package: the modules are named after the kinds."""
