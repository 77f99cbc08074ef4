"""One scan -> labels on its own grid."""
