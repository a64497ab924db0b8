//! Loss curves and attention maps as SVG, PNG and terminal drawings.
