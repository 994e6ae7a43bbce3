//! Stella Router's vocabulary, codec and pure protocol session.
