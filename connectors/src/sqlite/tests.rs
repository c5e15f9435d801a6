//! What the suite of every connector does not ask of SQLite.
