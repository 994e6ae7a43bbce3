//! Links, connectors, listeners and the driver that joins them to a session.
