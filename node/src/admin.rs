//! What the command line asks a running node over its admin socket, and the answers.
