//! What the loader accepts, how layers lie over each other, and every kind of diagnostic, as an operator sees it.

mod anything;
mod layers;
mod mistakes;
mod settings;
