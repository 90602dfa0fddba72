//! The embedded installation.
